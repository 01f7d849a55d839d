"""The table by family says what the operators say."""

from __future__ import annotations

import doctest

from edgekd.profiles import read_workload, workload_lines
from edgekd.profiles.estimation import by_family, workload
from edgekd.profiles.estimation.by_family import family_totals
from edgekd.profiles.estimation.operators import Operator, Workload

WORKLOAD = Workload(
    (
        Operator(
            "a", "Conv", "conv-1x1", macs=300, input_elements=10, output_elements=20, weight_elements=30
        ),
        Operator("b", "Conv", "conv-1x1", macs=600, output_elements=5, integer=True, element_bytes=1),
        Operator("c", "Gemm", "gemm", macs=100, weight_elements=7, weight_element_bytes=0.5),
        Operator("d", "Relu", "elementwise", input_elements=4, output_elements=4),
    ),
    notes=("a note",),
)


def test_totals_are_sums_and_shares_add_up() -> None:
    totals = family_totals(WORKLOAD)
    assert [(total.family, total.operators, total.macs) for total in totals] == [
        ("conv-1x1", 2, 900), ("gemm", 1, 100), ("elementwise", 1, 0),
    ]  # fmt: skip
    assert [total.bytes for total in totals] == [4 * 60 + 5, 4, 32]
    assert sum(total.share for total in totals) == 1
    assert totals[0].integer == 1


def test_lines_end_with_the_sum_and_the_notes() -> None:
    *_, total, integers, note = workload_lines(WORKLOAD)
    assert total.split()[:2] == ["all", "4"]
    assert (integers, note) == ("1 of 4 operators compute in integers", "a note")
    assert doctest.testmod(by_family).failed == 0 < doctest.testmod(by_family).attempted


def test_an_empty_workload_has_a_table_too() -> None:
    assert len(workload_lines(Workload(()))) == 2


def test_the_public_name() -> None:
    assert read_workload is workload.read_workload
