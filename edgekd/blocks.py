"""Where integers do not pay: the operators of two files of one network, summed block by block."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgekd.profiles import OperatorCost


@dataclass(frozen=True)
class BlockCost:
    """A block of the network in integers and in float.

    Attributes:
        name: the module's path, such as ``layer1.0``.
        int8_us, fp32_us: microseconds an inference, of all operators of the block.
    """

    name: str
    int8_us: float
    fp32_us: float


@dataclass(frozen=True)
class _Path:
    us: float
    blocks: tuple[BlockCost, ...] = ()

    def plus(self, us: float, *blocks: BlockCost) -> _Path:
        return _Path(self.us + us, (*self.blocks, *blocks))


def block_of(layer: str) -> str:
    """The repeated part of the network that ``layer`` stands in: its path up to the last number."""
    parts = layer.split(".")
    numbered = [k for k, part in enumerate(parts[:-1]) if part.isdigit()]
    return ".".join(parts[: numbered[-1] + 1]) if numbered else parts[0]


def compare_blocks(
    int8: Sequence[OperatorCost], fp32: Sequence[OperatorCost], layers: Iterable[str]
) -> list[BlockCost]:
    """What each block costs in the two files, in the order of execution of the first.

    An operator that the runtime made itself (a conversion, a change of layout) has no module's name. It
    counts for the block before it, at the start for the first.

    Args:
        layers: names of the convolution and linear layers; only their blocks are compared.
    """
    blocks = list(dict.fromkeys(block_of(layer) for layer in layers))
    one, other = _sums(int8, blocks), _sums(fp32, blocks)
    return [BlockCost(name, one[name], other[name]) for name in blocks if one[name] and other[name]]


def float_runs(costs: Sequence[BlockCost], change_us: float) -> list[BlockCost]:
    """The blocks to compute in float so that all blocks and the changes of type between them take least.

    A shortest path through two states a block, so what follows a block is weighed with it: one that is a little
    faster in integers stays in float between two that are not.

    Args:
        costs: in order of execution.
        change_us: what one change between integers and float takes.
    """
    integers = floating = _Path(0.0)
    for cost in costs:
        integers, floating = (
            min(integers, floating.plus(change_us), key=lambda path: path.us).plus(cost.int8_us),
            min(floating, integers.plus(change_us), key=lambda path: path.us).plus(cost.fp32_us, cost),
        )
    return list(min(integers, floating, key=lambda path: path.us).blocks)


def layer_costs(costs: Iterable[OperatorCost]) -> dict[str, float]:
    """Microseconds an inference of each layer's convolution or product, and of what is fused into it."""
    sums: dict[str, float] = defaultdict(float)
    for cost in costs:
        if any(kind in cost.op_type for kind in ("Conv", "Gemm", "MatMul")):
            path = cost.node.split("/")[0]
            sums[cost.layers[0] if cost.layers else path] += cost.mean_us
    return dict(sums)


def _sums(costs: Sequence[OperatorCost], blocks: Sequence[str]) -> dict[str, float]:
    known = set(blocks)
    sums: dict[str, float] = defaultdict(float)
    current, before = None, 0.0
    for cost in sorted(costs, key=lambda cost: cost.position):
        path = cost.node.split("/")[0]
        current = next((name for name in _prefixes(path) if name in known), current)
        if current is None:
            before += cost.mean_us
            continue
        sums[current] += cost.mean_us + before
        before = 0.0
    return sums


def _prefixes(path: str) -> list[str]:
    """``a.b.c``, ``a.b``, ``a``."""
    parts = path.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
