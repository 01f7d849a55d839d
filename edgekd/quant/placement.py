"""Where activations are quantized: a plan read off the call graph, one rule table, no architecture names.

The rule is ONNX Runtime's: an operation runs in integers when *every* activation it reads and the one it
writes carry Q/DQ. A ReLU after a convolution, linear layer or add disappears into the quantization after
it, so the tensor between them is left alone. Operations that only move values (flatten, transpose, max
pooling) keep the scale of what they move.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal, get_args

from edgekd.models.calls import Call, CallGraph, Site
from edgekd.quant.call_rules import (
    GATES,
    IDENTITIES,
    MOVES_VALUES,
    WEIGHTED,
    bounds_of,
    fused_reader,
    gate_of,
    runs_in_integers,
    sole_reader,
    source_of,
    within,
)
from edgekd.quant.gelu import LOWEST
from edgekd.quant.hardswish import HALF_WIDTH
from edgekd.quant.joined import join_ranges
from edgekd.quant.regions import Regions, cut_regions

Style = Literal["full", "auto", "weighted"]
INPUT = Site("", "input", 0)


@dataclass(frozen=True)
class Placement:
    """``points`` maps the call whose output is quantized (or :data:`INPUT`) to the call whose range it uses.

    ``inputs`` maps each convolution and linear layer that runs in integers to the range of what it reads.
    ``bounds`` holds the values that a range's call cannot leave (``(0, 6)`` after a ReLU6): a learned range
    that stays inside lets the clip itself disappear from the file. ``entries`` maps layers to the range by
    which they round what they read, where others read the same value in float. ``gelus`` are computed
    on bytes, and so are ``hardswishes``, each with the range of what it reads.
    """

    points: dict[Site, Site]
    inputs: dict[Site, Site] = field(default_factory=dict)
    bounds: dict[Site, tuple[float, float]] = field(default_factory=dict)
    entries: dict[Site, Site] = field(default_factory=dict)
    gelus: frozenset[Site] = frozenset()
    hardswishes: dict[Site, Site] = field(default_factory=dict)

    @property
    def anchored(self) -> frozenset[Site]:
        """Ranges of which only a HardSwish reads, which is 0 below -3."""
        return frozenset(self.hardswishes.values())

    @property
    def ranges(self) -> list[Site]:
        """The distinct ranges, in forward order of their first use."""
        return list(dict.fromkeys((*self.points.values(), *self.entries.values())))


def plan_placement(graph: CallGraph, float_layers: Collection[str] = (), style: Style = "auto") -> Placement:
    """Decide which values carry Q/DQ.

    Args:
        graph: of the network with batch norms folded.
        float_layers: names of modules that compute in float: a layer, or a block with all that it holds.
        style: ``full``: whatever has an integer kernel runs in integers. ``auto``: what lies between
            convolutions and linear layers runs where that costs least (:mod:`edgekd.quant.regions`).
            ``weighted``: only convolutions and linear layers.
    """
    if style not in get_args(Style):
        raise ValueError(f"style must be one of {get_args(Style)}, got {style!r}")
    integer_calls = _integer_calls(graph, float_layers)
    regions = None if style == "full" else plan_regions(graph, float_layers, style)
    readers: dict[Site, int] = {}
    if regions is None:
        wanted = {source_of(graph, value) for call in integer_calls for value in call.inputs}
        wanted.update(value for call in integer_calls for value in _quantized_output(graph, call))
    else:
        wanted, readers = _within_regions(graph, regions)
    root: dict[int, int] = {}
    for value in sorted(wanted.union(readers.values())):
        _root(graph, value, root)
    if style == "full":
        wanted.update(root.values())
    for value in list(wanted):
        root.setdefault(value, value)
    joined = join_ranges(
        graph,
        root,
        wanted - set(graph.result),
        integer=lambda call: call in integer_calls and (regions is None or call.index in regions.integer),
        source=lambda value: source_of(graph, value),
        bounds=lambda value: _clips(graph, value),
    )
    limits_of = {together: limits for together, limits in joined.values() if limits is not None}
    root = {value: joined[kept][0] if kept in joined else kept for value, kept in root.items()}
    # The logits stay float: the last integer kernel writes them directly, at no cost in accuracy.
    points = {
        site_of(graph, value): site_of(graph, root[value])
        for value in sorted(wanted)
        if value not in graph.result
    }
    hardswishes = _read_alone(graph, points, "hardswish", points)
    gates = [
        gate_of(call.site)
        for call in graph.calls
        if call.op in GATES
        and call.site not in hardswishes
        and {source_of(graph, call.inputs[0]), *call.outputs} <= wanted
        and (regions is None or call.index in regions.integer)
    ]
    points |= {gate: gate for gate in gates}
    gelus = frozenset(
        call.site
        for call in graph.calls
        if call.op == "gelu"
        and {source_of(graph, call.inputs[0]), *call.outputs} <= wanted
        and not any(value in graph.result for value in call.outputs)
        and (regions is None or call.index in regions.integer)
    )
    lowest = dict.fromkeys(_read_alone(graph, points, "gelu", gelus).values(), (LOWEST, math.inf))
    lowest |= dict.fromkeys(hardswishes.values(), (-HALF_WIDTH, math.inf))
    inputs = {
        call.site: site_of(graph, root[source_of(graph, call.inputs[0])])
        for call in integer_calls
        if call.op in WEIGHTED
    }
    bounds = {
        site_of(graph, value): limits
        for value in sorted(set(root.values()))
        if (limits := limits_of.get(value) or _clips(graph, value)) is not None
    }
    bounds |= dict.fromkeys(gates, (0.0, 1.0)) | lowest
    entries = {site: site_of(graph, root[value]) for site, value in readers.items()}
    return Placement(points, inputs, bounds, entries, gelus, hardswishes)


def plan_regions(graph: CallGraph, float_layers: Collection[str] = (), style: Style = "auto") -> Regions:
    """Which calls of ``graph`` run in integers; args as for :func:`plan_placement`."""
    integer_calls = _integer_calls(graph, float_layers)
    fused = {
        reader.index: call.index
        for call in integer_calls
        if (reader := fused_reader(graph, call)) is not None
    }
    gates = [
        call.index
        for call in graph.calls
        if call.op in (*GATES, "gelu") and not any(within(call.site.module, block) for block in float_layers)
    ]
    # The product of two activations is faster in float: both its sides would have to be packed at each run.
    capable = {call.index for call in integer_calls if call.op != "matmul"}.union(gates)
    return cut_regions(
        graph, capable, fused, moves=MOVES_VALUES, transparent=IDENTITIES, all_float=style == "weighted"
    )


def _within_regions(graph: CallGraph, regions: Regions) -> tuple[set[int], dict[Site, int]]:
    """The values that are rounded where they are made, and the layers that round what they read.

    A float value that a convolution and a float operation read (a residual) is rounded for the first alone.
    """
    rounded: set[int] = set()
    entries: dict[Site, int] = {}
    reads: dict[int, list[Call]] = {}
    for call in graph.calls:
        if call.op not in IDENTITIES:
            for value in call.inputs:
                reads.setdefault(source_of(graph, value), []).append(call)
    for call in graph.calls:
        if call.index in regions.integer and not regions.absorbed(call):
            rounded.update(_quantized_output(graph, call))
    for value, calls in reads.items():
        integer = [call for call in calls if regions.reads(call) and not regions.absorbed(call)]
        if value in rounded or not integer:
            continue
        returned = value in graph.result
        if all(call.op in WEIGHTED for call in integer) and (returned or len(integer) < len(calls)):
            entries |= {call.site: value for call in integer}
        else:
            rounded.add(value)
    return rounded, entries


def _read_alone(
    graph: CallGraph, points: dict[Site, Site], op: str, among: Collection[Site]
) -> dict[Site, Site]:
    """Activations that read what a convolution or a linear layer wrote for them alone, with its range."""
    found = {}
    shared = Counter(points.values())
    for call in graph.calls:
        made = graph.producer(source_of(graph, call.inputs[0])) if call.op == op else None
        if made is None or made.op not in WEIGHTED or sole_reader(graph, made) is not call:
            continue
        own = points.get(made.site)
        if own == made.site and shared[own] == 1 and call.site in among:
            found[call.site] = own
    return found


def _clips(graph: CallGraph, value: int) -> tuple[float, float] | None:
    producer = graph.producer(value)
    return None if producer is None else bounds_of(producer)


def _integer_calls(graph: CallGraph, float_layers: Collection[str]) -> list[Call]:
    return [call for call in graph.calls if runs_in_integers(call, float_layers)]


def _quantized_output(graph: CallGraph, call: Call) -> tuple[int, ...]:
    reader = fused_reader(graph, call)
    return call.outputs if reader is None else reader.outputs


def _root(graph: CallGraph, value: int, known: dict[int, int]) -> int:
    """Follow operations that only move values back to the value whose range they keep."""
    if value not in known:
        producer = graph.producer(value)
        if producer is not None and producer.op in MOVES_VALUES and producer.inputs:
            known[value] = _root(graph, source_of(graph, producer.inputs[0]), known)
        else:
            known[value] = value
    return known[value]


def site_of(graph: CallGraph, value: int) -> Site:
    producer = graph.producer(value)
    return INPUT if producer is None else producer.site
