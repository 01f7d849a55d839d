"""Ranges: what left-out rows were off by, wider where no row is near, never without the point."""

from __future__ import annotations

import math

import pytest

from edgekd.profiles.estimation.parameters import Fitted
from edgekd.profiles.estimation.ranges import Range, range_of
from edgekd.profiles.estimation.runtimes import runtime_kind
from edgekd.profiles.estimation.unseen_styles import values_for

INTERVALS = {"cpu|unknown": [-0.6, 0.8], "ncnn|known": [-0.2, 0.3], "ncnn|known|mobile": [0.05, 0.4]}
FIT = Fitted({}, {}, INTERVALS, {"ncnn|wide|fp16|dense": 3, "ncnn|wide|fp16|mobile": 3}, {}, {"ncnn": 2e7})


def _found(*, kind: str = "dense", precision: str = "fp16", known: bool = True, macs: float = 1e8) -> Range:
    return range_of(
        FIT, runtime_kind("ncnn"), style="wide", precision=precision, kind=kind, known_board=known, macs=macs
    )


def _logs(*, kind: str, precision: str = "fp16", known: bool = True) -> list[float]:
    found = _found(kind=kind, precision=precision, known=known)
    return [math.log(found.low), math.log(found.high)]


def test_the_narrowest_set_that_has_rows_is_taken() -> None:
    assert _logs(kind="dense") == pytest.approx([-0.2, 0.3])
    assert _logs(kind="dense", known=False) == pytest.approx([-0.6, 0.8])


def test_the_point_is_inside_though_all_rows_were_slower() -> None:
    assert _logs(kind="mobile") == pytest.approx([0.0, 0.4])


def test_without_rows_near_the_range_is_half_as_wide_again_and_not_validated() -> None:
    assert _logs(kind="dense", precision="int8") == pytest.approx([-0.3, 0.45])
    assert (_found(precision="int8").validated, _found().validated) == (False, True)


def test_a_network_far_smaller_than_any_published_may_take_twice_or_half_and_is_not_validated() -> None:
    small, near = _found(macs=0.9e7), _found(macs=1.1e7)
    assert [math.log(small.low), math.log(small.high)] == pytest.approx([-math.log(2), math.log(2)])
    assert (small.validated, near.validated) == (False, True)
    assert (small.smallest, near.smallest) == (2e7, 0.0)


def test_a_style_without_rows_borrows_from_the_nearest_with_rows() -> None:
    values = {"runtime/fp32|onnxruntime|narrow": 0.25, "mac/gemm": 0.5}
    fit = Fitted(values, {}, {}, {"onnxruntime|narrow|fp32|mobile": 6}, {})
    runtime = runtime_kind("onnxruntime")
    assert values_for(fit, runtime, "in-order")["runtime/fp32|onnxruntime|in-order"] == 0.25
    assert values_for(fit, runtime, "narrow") is values
    assert values_for(fit, runtime, "in-order")["mac/gemm"] == 0.5
