"""Operators of two files summed block by block."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgekd.blocks import BlockCost, block_of, compare_blocks, float_runs
from edgekd.profiles import OperatorCost


@pytest.mark.parametrize(
    ("layer", "block"),
    [
        ("conv_stem", "conv_stem"),
        ("layer1.0.conv1", "layer1.0"),
        ("stages.1.blocks.2.mlp.fc1", "stages.1.blocks.2"),
        ("blocks.0.1.se.conv_reduce", "blocks.0.1"),
        ("features.3", "features"),
        ("head.fc", "head"),
    ],
)
def test_a_block_is_the_path_up_to_the_last_number(layer: str, block: str) -> None:
    assert block_of(layer) == block


def cost(op: str, node: str, us: float, position: int) -> OperatorCost:
    return OperatorCost(op, node, us, 0.0, position)


def test_operators_without_a_name_count_for_the_block_before_them() -> None:
    int8 = [
        cost("QLinearConv", "blocks.1.conv/Conv_token_7", 10.0, 2),
        cost("QuantizeLinear", "q1", 1.0, -1),
        cost("QLinearConv", "stem/Conv_token_1", 5.0, 0),
        cost("QuantizeLinear", "q344", 2.0, 1),
        cost("DequantizeLinear", "d9", 3.0, 3),
        cost("QLinearAdd", "blocks.1/Add", 4.0, 4),
    ]
    fp32 = [
        cost("Conv", "stem/Conv_nchwc", 20.0, 0),
        cost("Conv", "blocks.1.conv/Conv", 6.0, 1),
        cost("Gemm", "head/Gemm", 100.0, 2),
    ]
    stem, block = compare_blocks(int8, fp32, ["stem", "blocks.1.conv", "head"])
    assert (stem.name, stem.int8_us, stem.fp32_us) == ("stem", 8.0, 20.0)
    assert (block.name, block.int8_us, block.fp32_us) == ("blocks.1", 17.0, 6.0)


@pytest.mark.parametrize("seed", range(5))
def test_runs_are_the_cheapest_of_all_choices(seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs = [BlockCost(str(k), *rng.uniform(1, 9, 2)) for k in range(8)]

    def total(in_float: tuple[bool, ...], change: float) -> float:
        times = (
            cost.fp32_us if chosen else cost.int8_us for cost, chosen in zip(costs, in_float, strict=True)
        )
        return sum(times) + change * sum(a != b for a, b in itertools.pairwise(in_float))

    for change in (0.0, 1.5, 100.0):
        best = min(itertools.product((False, True), repeat=8), key=lambda choice: total(choice, change))
        assert float_runs(costs, change) == [cost for cost, chosen in zip(costs, best, strict=True) if chosen]
