"""Corrections by what published networks alike were off by."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgekd.device import load_device
from edgekd.profiles.estimation.alike import (
    Alike,
    Likeness,
    case_of,
    fitted_alike,
    likeness,
    look_of,
    to_json,
)
from edgekd.profiles.estimation.hardware import read_hardware
from edgekd.profiles.estimation.op_table import op_table
from edgekd.profiles.estimation.operators import Operator
from edgekd.profiles.estimation.parameters import fitted
from edgekd.profiles.estimation.runtimes import runtime_kind


def _look(*, depthwise: int = 1_000_000, pointwise: int = 9_000_000) -> np.ndarray:
    return look_of(
        op_table(
            [
                Operator("a", "Conv", "conv-depthwise", macs=depthwise, input_elements=10_000, output_elements=10_000),
                Operator("b", "Conv", "conv-1x1", macs=pointwise, input_elements=10_000, output_elements=10_000),
            ]
        )
    )  # fmt: skip


def _case(
    look: np.ndarray, runtime: str = "ncnn", place: str = "pi", precision: str = "fp32", crew: str = "4"
) -> Likeness:
    return Likeness(runtime, place, precision, crew, look)


ROW = _case(_look())


def test_a_look_is_shares_and_a_size() -> None:
    look = _look()
    assert (look[:-1] ** 2).sum() == pytest.approx(1.0)
    # 2 x 1 M / 8 + 2,500 at five times the ideal, 2 x 9 M / 8 + 2,500 at 1.5 times, two nodes of 1,500 cycles.
    assert np.exp(look[-1]) == pytest.approx(5 * 252_500 + 1.5 * 2_252_500 + 3_000)


def test_the_same_network_counts_most_on_its_board_less_elsewhere_and_not_in_another_runtime() -> None:
    cases = [
        ROW, _case(_look(), crew="1"), _case(_look(), precision="int8"), _case(_look(), place="tx2"),
        _case(_look(), runtime="tflite"),
    ]  # fmt: skip
    assert likeness(cases, [ROW])[:, 0] == pytest.approx([0.06, 0.0525, 0.025, 0.01, 0.0])


def test_any_network_in_the_same_precision_counts_a_little_by_the_share_of_the_same_cores() -> None:
    look = _look(depthwise=0, pointwise=9_000_000_000)
    cases = [_case(look), _case(look, crew="1"), _case(look, precision="int8"), _case(look, place="tx2")]
    assert likeness(cases, [ROW])[:, 0] == pytest.approx([0.01, 0.0025, 0.0, 0.0], abs=1e-3)


def test_likeness_fades_with_the_mix_of_operators_and_with_size() -> None:
    other, larger = _look(depthwise=4_000_000), _look(depthwise=10_000_000, pointwise=90_000_000)
    same, mixed, far = likeness([_case(look, crew="1") for look in (_look(), other, larger)], [ROW])[:, 0]
    assert same > mixed > 0.1 * same
    assert same > far > 0.1 * same


def test_cores_in_common_are_counted_kind_by_kind() -> None:
    nothing = _look(depthwise=0, pointwise=9_000_000_000)
    row = _case(_look(), crew="4+2")
    cases = [_case(nothing, crew=crew) for crew in ("4+2", "4+0", "0+4", "2+4")]
    assert likeness(cases, [row])[:, 0] == pytest.approx(
        [0.01, 0.01 * 4 / 6, 0.01 * 2 / 8, 0.01 * 4 / 8], abs=1e-4
    )
    on_gpu = [_case(nothing, "tensorrt", precision="fp16", crew="")]
    assert likeness(on_gpu, on_gpu)[0, 0] == pytest.approx(0.06)


def test_a_correction_is_the_sum_over_rows_and_zero_far_from_all() -> None:
    alike = Alike([ROW, _case(_look(), place="tx2")], np.asarray([2.0, -1.0]))
    assert alike.correction(ROW) == pytest.approx(2 * 0.06 - 0.01)
    assert alike.correction(_case(_look(), runtime="tflite")) == 0.0
    assert Alike([], np.zeros(0)).correction(ROW) == 0.0


def test_rows_of_one_network_share_its_look_in_the_file() -> None:
    document = to_json(Alike([ROW, _case(_look(), place="tx2")], np.asarray([2.0, -1.25])))
    assert len(document["networks"]) == 1
    assert document["places"] == ["ncnn|pi|fp32|4", "ncnn|tx2|fp32|4"]
    assert document["rows"] == [[0, 0, 2.0], [0, 1, -1.25]]
    json.dumps(document)


@pytest.mark.parametrize(
    ("kind", "runtimes"), [("cpu", {"onnxruntime", "ncnn", "tflite"}), ("gpu", {"tensorrt"})]
)
def test_what_is_shipped_belongs_to_the_fit(kind: str, runtimes: set[str]) -> None:
    alike = fitted_alike(kind)
    assert len(alike.rows) == fitted(kind).provenance["rows"]
    assert {row.runtime for row in alike.rows} >= runtimes
    most = max(abs(alike.correction(row)) for row in alike.rows[::50])
    assert 0.01 < most < 0.5


def test_a_case_says_which_cores_compute_and_in_what() -> None:
    hardware = read_hardware(load_device("rk3588"))
    table = op_table([Operator("b", "Conv", "conv-1x1", macs=9, input_elements=3, output_elements=3)])

    def place(runtime: str, precision: str, threads: int, clusters: slice = slice(None)) -> tuple[str, str]:
        case = case_of(table, hardware, runtime_kind(runtime), precision, threads, clusters)
        return case.precision, case.crew

    assert place("ncnn", "fp16", 6) == ("fp16", "4+2")
    assert place("ncnn", "fp16", 4, slice(1, None)) == ("fp16", "0+4")
    assert place("onnxruntime", "fp16", 2) == ("fp32", "2+0")
    assert place("tensorrt", "fp16", 8) == ("fp16", "")
