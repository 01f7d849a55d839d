"""A deployed file's part of ``report.json``: what was read back from it, its latency, its baselines."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AliasChoices, Field, model_validator

from edgekd.report.exchange import ExchangeFacts
from edgekd.report.schema_base import Amount, Count, Fraction, Metrics, Open

LatencyKind = Literal["measured", "emulated", "estimated"]


class LatencyFacts(Open):
    """``low_ms``/``high_ms``: the p50 of the quickest and the slowest round, or an estimate's range."""

    kind: LatencyKind
    device: str
    runtime: str
    runtime_version: str | None = None
    threads: int = Field(ge=1)
    batch: int = Field(default=1, ge=1)
    precision: str | None = None
    p50_ms: float = Field(gt=0)
    p90_ms: Amount | None = None
    p99_ms: Amount | None = None
    mean_ms: Amount | None = None
    samples: Count | None = None
    low_ms: Amount | None = None
    high_ms: Amount | None = None
    validated: bool = Field(default=False, description="not measured, but a real board has confirmed it")
    peak_memory_bytes: Count | None = None
    model_sha256: str | None = None
    warnings: list[str] = Field(default_factory=list)


class Parity(Open):
    """The written file against ``reference`` (the trained torch model) on real samples."""

    samples: Count
    agreement: Fraction
    max_abs_diff: Amount | None = None
    reference: str | None = None


class NamedReason(Open):
    """A layer or node, and why it was left out. ``"name: reason"`` is read as well."""

    name: str
    reason: str = ""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            name, _, reason = value.partition(": ")
            return {"name": name, "reason": reason}
        return value


class Sparsity(Open):
    """Read from the file: ``layers`` of ``layers_total`` follow the pattern; ``violations`` counts groups."""

    pattern: str
    layers: Count
    layers_total: Count
    violations: Count
    skipped: list[NamedReason] = Field(default_factory=list)


class Quantization(Open):
    """Convolution and linear nodes of the runtime's optimized graph.

    ``float_products`` counts products of two activations (attention) in float; they are no part of the
    coverage. ``mac_coverage`` weights the coverage by multiply-accumulates. ``weight_bytes``: of a weight-only
    file's linear weights, scales included, and what they take in fp32.
    """

    scheme: str
    integer_ops: Count
    float_ops: Count
    coverage: Fraction
    mac_coverage: Fraction | None = None
    float_products: Count = 0
    weight_bytes: Count | None = None
    weight_bytes_fp32: Count | None = None
    float_nodes: list[NamedReason] = Field(default_factory=list)


class VariantFacts(Open):
    """One way to write the trained network, as measured (for a board: estimated) before one was ``deployed``.

    ``validation_score`` is of the validation split; ``speedup_vs_fp32`` is against the same weights in float.
    """

    name: str
    deployed: bool
    kind: Literal["measured", "estimated"] = "measured"
    p50_ms: float = Field(gt=0)
    speedup_vs_fp32: Amount | None = None
    size_bytes: Count | None = None
    validation_score: Fraction | None = None
    float_layers: list[NamedReason] = Field(default_factory=list)


class Operator(Open):
    """``share`` is of the whole inference. ``node``, the profiler's word, is read as ``name``."""

    name: str = Field(validation_alias=AliasChoices("name", "node"))
    op_type: str
    mean_us: Amount
    share: Fraction | None = None


class BaselineFile(Open):
    """An fp32 ONNX file that was measured in the same rounds as the deployed one."""

    file: str
    latency: list[LatencyFacts] = Field(default_factory=list)
    size_bytes: Count | None = None
    compressed_bytes: Count | None = None
    metrics: Metrics | None = None


class Baseline(BaselineFile):
    """The same student in fp32; ``teacher`` is the teacher in fp32 (absent where both are one model)."""

    teacher: BaselineFile | None = None


class DeployFacts(Open):
    """One deployed file; ``metrics`` come from running the ONNX file itself on the test split."""

    device: str
    device_title: str | None = None
    runtime: str
    file: str
    sha256: str
    size_bytes: Count
    compressed_bytes: Count | None = None
    metrics: Metrics
    parity: Parity | None = None
    sparsity: Sparsity | None = None
    quantization: Quantization | None = None
    latency: list[LatencyFacts] = Field(default_factory=list)
    baseline: Baseline | None = None
    speedup_vs_student_fp32: Amount | None = None
    speedup_vs_teacher: Amount | None = None
    operators: list[Operator] = Field(default_factory=list)
    variants: list[VariantFacts] = Field(default_factory=list)
    exchange: ExchangeFacts | None = None
    warnings: list[str] = Field(default_factory=list)
