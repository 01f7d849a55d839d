"""Which calls of the network one integer kernel of the file computes, and on which ranges."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from edgekd.models.calls import Call, CallGraph, Site
from edgekd.quant.call_rules import FUSED_ACTIVATIONS, GATES, LINE, WEIGHTED, fused_reader, gate_of, source_of
from edgekd.quant.float_kernels import FLOAT_TABLES
from edgekd.quant.placement import Placement, site_of

Kind = Literal[
    "weighted", "add", "mul", "mean", "line", "gated", "gelu", "hardswish", "table", "later", "scaled"
]
_MEANS = frozenset({"mean", "adaptive_avg_pool2d"})


@dataclass(frozen=True)
class Kernel:
    """One call in integers.

    Attributes:
        kind: ``line`` is a hard sigmoid, ``gated`` the product in a SiLU or HardSwish, ``gelu`` that in a GELU,
            ``hardswish`` one on its own bytes, ``table`` a float operation on the values of one range, which are few.
        reads: the ranges of its tensors.
        writes: the range of its output; None where the kernel writes float.
        keepdim: of a mean over height and width.
        line: a convolution with the line of the hard sigmoid behind it in its weights.
        factor: of a product of two tensors (``scaled``): that of a ``later`` call before it, which the runtime
            multiplies by behind the sums.
    """

    kind: Kind
    reads: tuple[Site, ...]
    writes: Site | None
    keepdim: bool = True
    line: bool = False
    factor: float = 1.0


def plan_kernels(graph: CallGraph, placement: Placement) -> dict[Site, Kernel]:
    """By site, in forward order, for the calls whose arithmetic is known to the bit; a HardSwish's gate under
    :func:`gate_of`. ``graph``: of the same network, in float."""
    found: dict[Site, Kernel] = {}
    for call in graph.calls:
        gate = placement.points.get(gate_of(call.site))
        if call.op in GATES and gate is not None:
            found |= _gated(graph, placement, call, gate)
            continue
        if call.site in placement.hardswishes:
            own = (placement.hardswishes[call.site],)
            found[call.site] = Kernel("hardswish", own, placement.points[call.site])
            continue
        if call.site in placement.gelus:
            found[call.site] = Kernel("gelu", _ranges(graph, placement, call), placement.points[call.site])
            continue
        kernel = _kernel(graph, placement, call)
        if kernel is not None:
            found[call.site] = kernel
    return found


def _kernel(graph: CallGraph, placement: Placement, call: Call) -> Kernel | None:
    kind: Kind
    reads: tuple[Site, ...]
    if call.op in WEIGHTED:
        own = placement.inputs.get(call.site)
        if own is None:
            return None
        kind, reads = "weighted", (own,)
    elif call.op == "mul" and (factor := _scales_product(graph, placement, call)) is not None:
        return Kernel("later", (), None, factor=factor)
    elif call.op == "matmul" and call.site not in placement.points:
        makers = [graph.producer(value) for value in call.inputs]
        factors = [_scales_product(graph, placement, maker) for maker in makers if maker is not None]
        factor = math.prod(each for each in factors if each is not None)
        return None if factors.count(None) == len(factors) else Kernel("scaled", (), None, factor=factor)
    elif call.op in ("add", "mul") and len(call.inputs) == 2:
        kind, reads = call.op, _ranges(graph, placement, call)  # type: ignore[assignment]
    elif call.op in FLOAT_TABLES and (found := _ranges(graph, placement, call)):
        return Kernel("table", found, None)
    elif call.op == "hardsigmoid":
        kind, reads = "line", _ranges(graph, placement, call)
    elif call.op in _MEANS and _pools(graph, call):
        kind, reads = "mean", _ranges(graph, placement, call)
    else:
        return None
    reader = fused_reader(graph, call)
    if reader is not None and reader.op not in (*FUSED_ACTIVATIONS, LINE):
        return None  # a factor for each channel: the file has it in its weights
    value = (reader or call).outputs[0]
    writes = placement.points.get(site_of(graph, value))
    if not reads or (writes is None and call.op != "linear"):
        return None
    keepdim = call.op != "mean" or bool(call.kwargs.get("keepdim", False)) or len(call.shape) == 4
    return Kernel(kind, reads, writes, keepdim, line=reader is not None and reader.op == LINE)


def _scales_product(graph: CallGraph, placement: Placement, call: Call) -> float | None:
    """The number by which ``call`` multiplies what only a product of two tensors reads: ``(q * scale) @ k.T``."""
    numbers = [a for a in call.args if isinstance(a, (int, float)) and not isinstance(a, bool)]
    if call.op != "mul" or len(call.inputs) != 1 or len(numbers) != 1 or call.kwargs:
        return None
    reader = graph.sole_consumer(call)
    floats = call.site not in placement.points and reader is not None and reader.site not in placement.points
    return float(numbers[0]) if floats and reader is not None and reader.op == "matmul" else None


def _gated(graph: CallGraph, placement: Placement, call: Call, gate: Site) -> dict[Site, Kernel]:
    reads, writes = _ranges(graph, placement, call), placement.points.get(call.site)
    if not reads or writes is None:
        return {}
    product = {call.site: Kernel("gated", (*reads, gate), writes)}
    return (
        product
        if GATES[call.op] == "sigmoid"
        else {gate_of(call.site): Kernel("line", reads, gate)} | product
    )


def _ranges(graph: CallGraph, placement: Placement, call: Call) -> tuple[Site, ...]:
    """Of what ``call`` reads; empty where one of them is float."""
    found = [placement.points.get(site_of(graph, source_of(graph, value))) for value in call.inputs]
    return tuple(each for each in found if each is not None) if None not in found else ()


def _pools(graph: CallGraph, call: Call) -> bool:
    """Over the whole height and width."""
    producer = graph.producer(source_of(graph, call.inputs[0]))
    if producer is None or len(producer.shape) != 4:
        return False
    return call.shape in (producer.shape[:2], (*producer.shape[:2], 1, 1))
