"""Mixtures of integers and float that are worth measuring: the network's two files compared by the runtime's own
profiler, block by block and convolution by convolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from edgekd.blocks import BlockCost, block_of, compare_blocks, layer_costs
from edgekd.models.calls import record_calls
from edgekd.profiles import OperatorCost
from edgekd.quant.islands import cheaper_alone
from edgekd.quant.partial import float_twin
from edgekd.quant.qat import QuantizedModel

# Single convolutions in float, whole blocks, either, or either with every block that is slower at all.
LAYERS, BLOCKS, BOTH, MOST = "mixed-layers", "mixed", "mixed-both", "mixed-most"
# A block goes back to float when its integers take this much longer than float: less is within the noise of
# the runtime's profiler, and float weights cost four times the bytes. Neighbours within it save conversions
# where they follow, so they are tried too.
SLOWER_BLOCK = 1.15


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
    slower = slow_blocks(int8, fp32, layers)
    slow = {name: cost for name, cost in slower.items() if cost.int8_us > SLOWER_BLOCK * cost.fp32_us}
    blocks, most = _reasons(slow, layers), _reasons(slower, layers)
    single = {
        layer: f"it takes {one:.0f} us in integers, {other:.0f} us in float and on the way there and back"
        for layer, (one, other) in (slow_layers(model, example, layers, int8, fp32) if alone else {}).items()
    }
    found: list[Mixture] = []
    for mixture in (
        Mixture(LAYERS, single),
        Mixture(BLOCKS, blocks, tuple(slow)),
        Mixture(BOTH, {**single, **blocks}, tuple(slow)),
        Mixture(MOST, {**single, **most}, tuple(slower)),
    ):
        if mixture.reasons and all(mixture.reasons.keys() != other.reasons.keys() for other in found):
            found.append(mixture)
    return sorted(found, key=lambda mixture: len(mixture.reasons))


def slow_blocks(
    int8: Sequence[OperatorCost], fp32: Sequence[OperatorCost], layers: list[str]
) -> dict[str, BlockCost]:
    """Blocks whose integers take longer than float, by however little."""
    return {
        block.name: block for block in compare_blocks(int8, fp32, layers) if block.int8_us > block.fp32_us
    }


def _reasons(slow: Mapping[str, BlockCost], layers: list[str]) -> dict[str, str]:
    return {
        layer: f"its block takes {slow[name].int8_us:.0f} us in integers, {slow[name].fp32_us:.0f} us in float"
        for layer in layers
        if (name := block_of(layer)) in slow
    }


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
