"""``report.json``, schema 1: the facts of a run, as data. Everything else in this room only draws them.

Fractions are 0 to 1, times are named in their unit, a number that does not exist is ``null`` (a label-free
run has no ``top1``). Keys that are not listed are kept: a newer writer does not break an older reader.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from edgekd.report.exchange import ExchangeFacts

SCHEMA = 1
LatencyKind = Literal["measured", "emulated", "estimated"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]


class _Open(BaseModel):
    """Unknown keys are kept; NaN and infinities are refused: they are not JSON."""

    model_config = ConfigDict(
        extra="allow", allow_inf_nan=False, populate_by_name=True, protected_namespaces=()
    )


class RecipeFacts(_Open):
    name: str
    hash: str


class ModelFacts(_Open):
    """The specs as the user wrote them, such as ``timm:resnet18``; ``same``: the teacher itself."""

    teacher: str | None = None
    student: str | None = None


class DataFacts(_Open):
    """``train``, ``validation`` and ``test`` are sample counts; ``classes`` a count.

    ``commonest`` is the share of the commonest class among the test samples, where each has one known label.
    """

    name: str
    train: Count
    validation: Count
    test: Count
    classes: int | None = None
    commonest: Fraction | None = None
    fingerprint: str | None = None
    provenance: dict[str, Any] = Field(default_factory=dict)


class MachineFacts(_Open):
    """The machine that ran the stages and the local measurements; ``threads`` are those of training."""

    cpu: str | None = None
    cores: int | None = None
    threads: int | None = None


class Metrics(_Open):
    top1: Fraction | None = None
    agreement: Fraction | None = Field(default=None, description="share of samples with the teacher's top-1")
    ece: Fraction | None = None
    nll: Amount | None = None
    f1_macro: Fraction | None = None
    f1_micro: Fraction | None = Field(default=None, description="with several labels a text")
    exact_match: Fraction | None = Field(default=None, description="share of texts with every label right")

    @property
    def accuracy(self) -> float | None:
        """What a reader asks first: top-1, or micro F1 with several labels a text."""
        return self.f1_micro if self.top1 is None else self.top1

    @property
    def accuracy_name(self) -> str:
        return "top-1" if self.f1_micro is None else "micro F1"


class Epoch(_Open):
    """One epoch of a stage; ``teacher_seconds`` is the part of ``seconds`` that the teacher took."""

    epoch: int
    train_loss: float | None = None
    val_top1: Fraction | None = None
    val_agreement: Fraction | None = None
    val_f1_micro: Fraction | None = None
    lr: Amount | None = None
    seconds: Amount | None = None
    samples_per_second: Amount | None = None
    teacher_seconds: Amount | None = None


class KeptMagnitude(_Open):
    """Share of the weights' magnitude that the mask keeps, before and after channel permutation."""

    before: Fraction | None = None
    after: Fraction | None = None


class KeptLayer(_Open):
    """A layer in float; ``kl`` (nats) is what its integers alone did to the answers."""

    name: str
    reason: str = ""
    kl: Amount | None = None
    macs_share: Fraction | None = None


class StageQuantization(_Open):
    """How a stage quantized. ``zero_shares``: by layer, the share of its inputs that becomes zero."""

    method: str | None = None
    algorithm: str | None = Field(default=None, description="of weight-only: rtn, gptq or awq")
    scheme: str | None = None
    smooth: float | str | None = None
    ranges: str | None = None
    kept_float: list[KeptLayer] = Field(default_factory=list)
    zero_shares: dict[str, Fraction] = Field(default_factory=dict)


class StageFacts(_Open):
    """A stage and the torch model that it left, evaluated on the test split."""

    name: str
    metrics: Metrics
    params: Count | None = None
    nonzero_params: Count | None = None
    macs: Count | None = None
    seconds: Amount | None = None
    kept_magnitude: KeptMagnitude | Fraction | None = None
    quantization: StageQuantization | None = None
    history: list[Epoch] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)


class LatencyFacts(_Open):
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


class Parity(_Open):
    """The written file against ``reference`` (the trained torch model) on real samples."""

    samples: Count
    agreement: Fraction
    max_abs_diff: Amount | None = None
    reference: str | None = None


class NamedReason(_Open):
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


class Sparsity(_Open):
    """Read from the file: ``layers`` of ``layers_total`` follow the pattern; ``violations`` counts groups."""

    pattern: str
    layers: Count
    layers_total: Count
    violations: Count
    skipped: list[NamedReason] = Field(default_factory=list)


class Quantization(_Open):
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


class VariantFacts(_Open):
    """One way to write the trained network, as measured before one was ``deployed``.

    ``validation_score`` is of the validation split; ``speedup_vs_fp32`` is against the same weights in float.
    """

    name: str
    deployed: bool
    p50_ms: float = Field(gt=0)
    speedup_vs_fp32: Amount | None = None
    size_bytes: Count | None = None
    validation_score: Fraction | None = None
    float_layers: list[NamedReason] = Field(default_factory=list)


class Operator(_Open):
    """``share`` is of the whole inference. ``node``, the profiler's word, is read as ``name``."""

    name: str = Field(validation_alias=AliasChoices("name", "node"))
    op_type: str
    mean_us: Amount
    share: Fraction | None = None


class BaselineFile(_Open):
    """An fp32 ONNX file that was measured in the same rounds as the deployed one."""

    file: str
    latency: list[LatencyFacts] = Field(default_factory=list)
    size_bytes: Count | None = None
    compressed_bytes: Count | None = None
    metrics: Metrics | None = None


class Baseline(BaselineFile):
    """The same student in fp32; ``teacher`` is the teacher in fp32 (absent where both are one model)."""

    teacher: BaselineFile | None = None


class DeployFacts(_Open):
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


class TextBaseline(_Open):
    """A method without a network, on the same texts: what any result has to be compared with."""

    name: str
    metrics: Metrics
    seconds: Amount | None = None


class Report(_Open):
    schema_version: Literal[1] = Field(default=1, alias="schema")
    recipe: RecipeFacts
    task: str
    models: ModelFacts = ModelFacts()
    data: DataFacts
    versions: dict[str, str]
    torch_device: str
    machine: MachineFacts = MachineFacts()
    seeds: dict[str, int] = Field(default_factory=dict)
    seconds: Amount
    stages: list[StageFacts]
    text_baseline: TextBaseline | None = None
    deploy: list[DeployFacts]
    warnings: list[str] = Field(default_factory=list)
