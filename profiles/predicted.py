"""What a latency says that no clock measured: each kind a type of its own, with a range and what it rests on.

:class:`~edgekd.profiles.report.LatencyReport` is measured. A number from an emulated core is a
:class:`LatencyEmulation`, one from a model is a :class:`LatencyEstimate`; neither can pass for the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class OperatorTime:
    """One operator of the graph, as the runtime runs it (fused).

    Attributes:
        node: name of the ONNX node, or of the first of those that were fused.
        family: what sets its speed, such as ``conv-depthwise``.
        bound: what limits it: ``compute``, ``memory`` or ``overhead``.
    """

    node: str
    op: str
    family: str
    milliseconds: float
    macs: int
    bytes: int
    bound: str


@dataclass(frozen=True)
class Predicted:
    """Latency of one ONNX file that was not measured. Times in milliseconds.

    Attributes:
        p50_ms: the point: what the median of a measurement is expected to be.
        low_ms, high_ms: a range that holds the truth for ``coverage`` of unseen boards and models.
        validated: published or own measurements lie near this board, runtime, precision and kind of model.
        basis: one line: what the number rests on.
        power_mode: of the board, where it has modes.
        notes: what a reader must know, one line each.
    """

    device: str
    runtime: str
    runtime_version: str
    threads: int
    batch: int
    precision: str
    p50_ms: float
    low_ms: float
    high_ms: float
    validated: bool
    basis: str
    model_sha256: str
    power_mode: str | None = None
    coverage: float = 0.8
    operators: Sequence[OperatorTime] = ()
    notes: Sequence[str] = ()
    inputs: Mapping[str, Sequence[int]] = field(default_factory=dict)
    kind: Literal["estimated", "emulated"] = field(default="estimated", init=False)

    def to_json(self) -> dict[str, Any]:
        """A latency entry of ``report.json``. What only a measurement has is null."""
        return {
            "kind": self.kind,
            "device": self.device,
            "runtime": self.runtime,
            "runtime_version": self.runtime_version,
            "threads": self.threads,
            "batch": self.batch,
            "precision": self.precision,
            "power_mode": self.power_mode,
            "p50_ms": self.p50_ms,
            "p90_ms": None,
            "p99_ms": None,
            "mean_ms": None,
            "samples": 0,
            "low_ms": self.low_ms,
            "high_ms": self.high_ms,
            "coverage": self.coverage,
            "validated": self.validated,
            "basis": self.basis,
            "peak_memory_bytes": None,
            "model_sha256": self.model_sha256,
            "warnings": list(self.notes),
            "inputs": {name: list(shape) for name, shape in self.inputs.items()},
            "operators": [vars(operator) for operator in self.operators],
        }


@dataclass(frozen=True)
class LatencyEstimate(Predicted):
    """From a model of device and graph (:func:`edgekd.profiles.estimate`)."""

    kind: Literal["estimated", "emulated"] = field(default="estimated", init=False)


@dataclass(frozen=True)
class LatencyEmulation(Predicted):
    """From instructions that the real runtime executed on an emulated core (:func:`edgekd.profiles.emulate`).

    Attributes:
        instructions: executed in one inference, by class, such as ``simd-fma``; all threads together.
    """

    instructions: Mapping[str, int] = field(default_factory=dict)
    kind: Literal["estimated", "emulated"] = field(default="emulated", init=False)

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "instructions": dict(self.instructions)}
