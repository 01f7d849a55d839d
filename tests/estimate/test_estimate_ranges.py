"""Ranges: what left-out rows were off by, wider where no row is near, never without the point."""

from __future__ import annotations

import math

import pytest

from edgekd.profiles.estimation.parameters import Fitted
from edgekd.profiles.estimation.ranges import range_of
from edgekd.profiles.estimation.runtimes import runtime_kind
from edgekd.profiles.estimation.unseen_styles import values_for

INTERVALS = {"cpu|unknown": [-0.6, 0.8], "ncnn|known": [-0.2, 0.3], "ncnn|known|mobile": [0.05, 0.4]}
FIT = Fitted({}, {}, INTERVALS, {"ncnn|wide|fp16|dense": 3, "ncnn|wide|fp16|mobile": 3}, {})


def _logs(*, kind: str, precision: str = "fp16", known: bool = True) -> list[float]:
    found = range_of(
        FIT, runtime_kind("ncnn"), style="wide", precision=precision, kind=kind, known_board=known
    )
    return [math.log(found.low), math.log(found.high)]


def test_the_narrowest_set_that_has_rows_is_taken() -> None:
    assert _logs(kind="dense") == pytest.approx([-0.2, 0.3])
    assert _logs(kind="dense", known=False) == pytest.approx([-0.6, 0.8])


def test_the_point_is_inside_though_all_rows_were_slower() -> None:
    assert _logs(kind="mobile") == pytest.approx([0.0, 0.4])


def test_without_rows_near_the_range_is_half_as_wide_again_and_not_validated() -> None:
    assert _logs(kind="dense", precision="int8") == pytest.approx([-0.3, 0.45])
    far = range_of(FIT, runtime_kind("ncnn"), style="wide", precision="int8", kind="dense", known_board=True)
    near = range_of(FIT, runtime_kind("ncnn"), style="wide", precision="fp16", kind="dense", known_board=True)
    assert (far.validated, near.validated) == (False, True)


def test_a_style_without_rows_borrows_from_the_nearest_with_rows() -> None:
    values = {"runtime/fp32|onnxruntime|narrow": 0.25, "mac/gemm": 0.5}
    fit = Fitted(values, {}, {}, {"onnxruntime|narrow|fp32|mobile": 6}, {})
    runtime = runtime_kind("onnxruntime")
    assert values_for(fit, runtime, "in-order")["runtime/fp32|onnxruntime|in-order"] == 0.25
    assert values_for(fit, runtime, "narrow") is values
    assert values_for(fit, runtime, "in-order")["mac/gemm"] == 0.5
