"""One row: what one peer made of one model. The JSON's schema is :class:`Result`."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from edgekd.profiles import Ratio

Status = Literal["ok", "not installed", "failed", "timed out", "wrong file"]


class Speed(BaseModel):
    """How many times longer one file takes than another: median over interleaved rounds, with its interval."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, ratio: Ratio) -> Speed:
        return cls(value=ratio.value, low=ratio.low, high=ratio.high)


class Points(BaseModel):
    """A difference of two files' top-1 on the same samples, in points, and its standard error: of the mean
    of each sample's difference (paired)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float
    se: float

    @classmethod
    def between(cls, first: np.ndarray, second: np.ndarray) -> Points:
        """Of ``first`` over ``second``: which samples ``(samples,)`` were answered rightly, bool."""
        apart = 100 * (first.astype(np.float64) - second)
        return cls(value=float(apart.mean()), se=float(apart.std(ddof=1) / len(apart) ** 0.5))


class Row(BaseModel):
    """Everything but names and status is None where it is not known.

    Attributes:
        reason: why there is no file, in one line; None when there is one.
        agreement: share of samples with the same top-1 as the fp32 file in ONNX Runtime.
        max_abs_diff: of single logits.
        sqnr_db: variance of the fp32 logits over samples against the mean squared error, in decibels. It tells
            files apart where random weights make top-1 a lottery.
        accuracy, loss: top-1 on labelled samples, a fraction, and fp32's minus this file's; None without labels.
        edgekd_gain: edgekd's top-1 minus this file's: above 0, edgekd's file is right more often; without
            labels, answers as the fp32 file more often.
        p50_ms, fp32_p50_ms: of this file, and of the fp32 file in ONNX Runtime, in the same interleaved run.
        speedup: fp32 in ONNX Runtime over this file.
        edgekd_speedup: this file over edgekd's: above 1, edgekd's is faster.
        own_fp32_p50_ms: fp32 in the peer's own runtime, where that is another one.
        integer_ops, float_ops, coverage: kernels of ONNX Runtime's optimized graph, x86 rule.
        violations, sparse_layers: groups that break ``pattern``, and layers that follow it.
        quantize_s: loading of packages excluded, calibration included.
    """

    model_config = ConfigDict(extra="forbid")

    model: str
    peer: str
    title: str
    version: str | None = None
    runtime: str = "onnxruntime"
    status: Status = "ok"
    reason: str | None = None
    agreement: float | None = None
    max_abs_diff: float | None = None
    sqnr_db: float | None = None
    samples: int | None = None
    accuracy: float | None = None
    loss: Points | None = None
    edgekd_gain: Points | None = None
    size_bytes: int | None = None
    fp32_p50_ms: float | None = None
    p50_ms: float | None = None
    speedup: Speed | None = None
    edgekd_speedup: Speed | None = None
    own_fp32_p50_ms: float | None = None
    integer_ops: int | None = None
    float_ops: int | None = None
    coverage: float | None = None
    pattern: str | None = None
    violations: int | None = None
    sparse_layers: int | None = None
    quantize_s: float | None = None
    peak_memory_bytes: int | None = None
    notes: list[str] = []

    def failed(self, status: Status, reason: str) -> Row:
        """This row with the reason why nothing of it can be measured."""
        return self.model_copy(update={"status": status, "reason": reason})


class Result(BaseModel):
    """A whole run.

    Attributes:
        conditions: machine class, versions, date, threads, seed, sample counts, where the photographs come from.
        models: facts of each model, see :meth:`benchmarks.peers.subject.Subject.facts`.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    conditions: dict[str, Any]
    models: list[dict[str, Any]]
    rows: list[Row]
