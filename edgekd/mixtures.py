"""Mixtures of integers and float that are worth measuring: the network's two files compared by the runtime's own
profiler, block by block and convolution by convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from edgekd.blocks import BlockCost, block_of, compare_blocks, float_runs, layer_costs
from edgekd.models.calls import record_calls
from edgekd.profiles import OperatorCost
from edgekd.quant.islands import cheaper_alone
from edgekd.quant.partial import float_twin
from edgekd.quant.qat import QuantizedModel

# Single convolutions in float, runs of blocks, either, or single ones with every block that is slower at all.
LAYERS, BLOCKS, BOTH, MOST = "mixed-layers", "mixed", "mixed-both", "mixed-most"
# What a change between integers and float takes between two blocks, as a share of the network's time in integers:
# a conversion of a middling tensor. It also stands for the noise of the runtime's profiler, within which a
# block that seems slower need not be.
CHANGE = 0.01


@dataclass(frozen=True)
class Mixture:
    """Attributes:
    reasons: layers that compute in float, with the reason.
    blocks: modules whose sums and products compute in float too.
    """

    name: str
    reasons: dict[str, str]
    blocks: tuple[str, ...] = ()


def mixtures(
    model: QuantizedModel,
    example: Tensor,
    layers: list[str],
    int8: Sequence[OperatorCost],
    fp32: Sequence[OperatorCost],
    *,
    alone: bool = True,
) -> list[Mixture]:
    """At most four, the fewest layers in float first; none that equals another.

    Args:
        example: as for :func:`edgekd.quant.qat.prepare_qat`.
        layers: names of the integer layers.
        int8, fp32: the runtime's profile of the two files of ``model``, or an estimate of it.
        alone: single convolutions too; what they cost on the way to float and back was measured on x86.
    """
    costs = compare_blocks(int8, fp32, layers)
    slow = float_runs(costs, CHANGE * sum(cost.int8_us for cost in costs))
    slower = [cost for cost in costs if cost.int8_us > cost.fp32_us]
    blocks, most = _reasons(slow, layers), _reasons(slower, layers)
    single = {
        layer: f"it takes {one:.0f} us in integers, {other:.0f} us in float and on the way there and back"
        for layer, (one, other) in (slow_layers(model, example, layers, int8, fp32) if alone else {}).items()
    }
    found: list[Mixture] = []
    for mixture in (
        Mixture(LAYERS, single),
        Mixture(BLOCKS, blocks, _names(slow)),
        Mixture(BOTH, {**single, **blocks}, _names(slow)),
        Mixture(MOST, {**single, **most}, _names(slower)),
    ):
        if mixture.reasons and all(mixture.reasons.keys() != other.reasons.keys() for other in found):
            found.append(mixture)
    return sorted(found, key=lambda mixture: len(mixture.reasons))


def _names(blocks: Sequence[BlockCost]) -> tuple[str, ...]:
    return tuple(block.name for block in blocks)


def _reasons(blocks: Sequence[BlockCost], layers: list[str]) -> dict[str, str]:
    known = {block.name: block for block in blocks}
    return {layer: _reason(known[name]) for layer in layers if (name := block_of(layer)) in known}


def _reason(block: BlockCost) -> str:
    times = f"{block.int8_us:.0f} us in integers, {block.fp32_us:.0f} us in float"
    if block.int8_us > block.fp32_us:
        return f"its block takes {times}"
    return f"its block takes {times} and stands beside blocks that float is faster in"


def slow_layers(
    model: QuantizedModel,
    example: Tensor,
    layers: list[str],
    int8: Sequence[OperatorCost],
    fp32: Sequence[OperatorCost],
) -> dict[str, tuple[float, float]]:
    """Convolutions that float pays for, by name: microseconds in integers and in float with its conversions."""
    one, other = layer_costs(int8), layer_costs(fp32)
    costs = {layer: (one[layer], other[layer]) for layer in layers if layer in one and layer in other}
    return cheaper_alone(record_calls(float_twin(model), example), costs)
