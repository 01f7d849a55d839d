"""A grouped convolution is so many small dense ones, each by the kernels that a dense one gets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgekd.device import load_device
from edgekd.profiles.estimation.hardware import read_hardware
from edgekd.profiles.estimation.op_table import op_table
from edgekd.profiles.estimation.operators import FAMILIES, Operator
from edgekd.profiles.estimation.pricing import terms_of
from edgekd.profiles.estimation.runtimes import runtime_kind
from edgekd.profiles.estimation.terms import price

WHOLE = Operator(
    "conv", "Conv", "conv-grouped", macs=2 * 784 * 64 * 64 * 9, input_elements=784 * 128, output_elements=784 * 128,
    weight_elements=2 * 64 * 64 * 9, kernel=(3, 3), groups=2, channels_in=128, channels_out=128, height=28, width=28,
)  # fmt: skip
HALF = replace(
    WHOLE, family="conv-dense-3x3", macs=WHOLE.macs // 2, input_elements=784 * 64, output_elements=784 * 64,
    weight_elements=64 * 64 * 9, groups=1, channels_in=64, channels_out=64,
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "family"),
    [
        ({}, "conv-dense-3x3"),
        ({"stride": 2}, "conv-dense-other"),
        ({"kernel": (1, 1)}, "conv-1x1"),
        ({"groups": 16}, "conv-dense-other"),  # eight channels each: too thin for Winograd
    ],
)
def test_a_group_is_of_the_family_that_it_would_be_alone(change: dict[str, object], family: str) -> None:
    table = op_table([replace(WHOLE, **change)])  # type: ignore[arg-type]
    assert FAMILIES[table.single[0]] == family
    assert FAMILIES[table.family[0]] == "conv-grouped"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_two_groups_compute_as_long_as_two_halves(precision: str) -> None:
    hardware = read_hardware(load_device("raspberry-pi-4b"))

    def compute(operators: list[Operator]) -> float:
        terms = terms_of(op_table(operators), hardware, runtime_kind("ncnn"), precision, 1)
        return float(np.sum(price(terms, {"mac/conv-dense-3x3": 0.3, "mac/conv-grouped": 9.0}).compute))

    assert compute([WHOLE]) == pytest.approx(compute([HALF, HALF]))
