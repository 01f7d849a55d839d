"""Which operations run in integers: the cheapest cut between what must and what must not.

A convolution has to read and write integers, and so has a linear layer over many tokens (it is written as a
convolution); one over a single row has to read them and may write either. Layer norm, softmax, GELU and the
products of attention are faster in float. Everything between (gates, concatenations, transposes, most sums)
can go both ways; what costs is each change of type. So the network is cut in two, integers and float, where
changes of type and slow kernels cost least: a minimum cut of the call graph (Ford and Fulkerson 1956).
Without a list of architectures integers then flow between convolutions, and float flows along the residual
stream of a transformer, which stays in float: eight bits for the whole tensor do not hold its outliers
(Bondarenko et al. 2021, arXiv 2109.12948).

Costs are nanoseconds per element, measured with ONNX Runtime 1.31 on one AVX512 core (tensors of 150,000 and
200,000 elements); only their proportions matter, and they differ little on other processors.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

from edgekd.models.calls import Call, CallGraph

QUANTIZE, DEQUANTIZE = 0.24, 0.15
# (integers, float) of the operations that have kernels for both.
_COSTS: dict[str, tuple[float, float]] = {
    "add": (0.18, 0.28), "mul": (0.29, 0.27), "cat": (0.15, 0.50), "silu": (0.57, 0.33),
    "sigmoid": (0.28, 0.38), "hardsigmoid": (0.10, 0.19), "hardswish": (0.38, 0.47),
    "gelu": (0.67, 0.60),
    # Moving values costs by their bytes.
    "permute": (0.06, 0.25), "transpose": (0.06, 0.25), "chunk": (0.03, 0.12), "split": (0.03, 0.12),
    "unbind": (0.03, 0.12),
    "mean": (0.06, 0.22), "adaptive_avg_pool2d": (0.06, 0.22),
    # QLinearAveragePool is a scalar loop (per element of the output; windows of 2 x 2 and 3 x 3).
    "avg_pool2d": (5.2, 1.0),
}  # fmt: skip
_POOLS = frozenset({"mean", "adaptive_avg_pool2d"})
_RELU = 0.14
_FREE_IN_INTEGERS = frozenset({"relu", "relu6"})
_GELU = 0.60
_FREE = (0.0, 0.0)
_SOURCE, _SINK = "integers", "float"


def price(op: str) -> float:
    """Nanoseconds an element of an activation between two integers: in integers, or in float and back."""
    if op in _FREE_IN_INTEGERS:
        return 0.0
    integer, floating = _COSTS.get(op, (math.inf, _GELU))
    return min(integer, floating + QUANTIZE + DEQUANTIZE)


@dataclass(frozen=True)
class Regions:
    """Indices of calls. ``integer``: read and write integers. ``linear``: linear layers, which read integers;
    those in both also write them. ``fused``: done by the call before on the way."""

    integer: frozenset[int]
    linear: frozenset[int]
    fused: frozenset[int]

    def absorbed(self, call: Call) -> bool:
        return call.index in self.fused and call.index in self.integer

    def reads(self, call: Call) -> bool:
        return call.index in self.integer or call.index in self.linear


def cut_regions(
    graph: CallGraph,
    capable: Collection[int],
    fused: dict[int, int],
    *,
    moves: Collection[str],
    transparent: Collection[str],
    all_float: bool = False,
) -> Regions:
    """Label every call.

    Args:
        capable: calls that have an integer kernel; of them convolutions must use it.
        fused: activation to the call whose integer kernel does it on the way.
        moves: operations that only move values; integers and float are the same to them.
        transparent: operations that do nothing in the deployed network.
        all_float: only convolutions write integers, whatever it costs.
    """
    flow = _Flow()
    linear: set[int] = set()
    streams = _streams(graph, {*moves, *transparent}, fused)
    for call in graph.calls:
        node = fused.get(call.index, call.index)
        size = math.prod(call.shape)
        if call.op in transparent:
            continue
        if call.index in fused:
            flow.edge(_SOURCE, node, _RELU * size)
        elif call.op == "linear" and call.index in capable:
            linear.add(call.index)
            if len(call.shape) > 2:
                flow.edge(_SOURCE, node, math.inf)
        elif call.op == "conv2d" and call.index in capable:
            flow.edge(_SOURCE, node, math.inf)
        elif not all_float and (call.index in capable or call.op in moves) and call.index not in streams:
            integer, floating = _COSTS.get(call.op, _FREE)
            flow.edge(node, _SINK, integer * size)
            flow.edge(_SOURCE, node, floating * size)
        else:
            flow.edge(node, _SINK, math.inf)
    for value, producer, readers in _edges(graph, fused, transparent):
        size = _size(graph, value)
        start: object = _SINK if producer is None else producer
        wanted = ("wanted", value)
        for reader in readers:
            into: object = _SOURCE if reader in linear else reader
            flow.edge(start, into, DEQUANTIZE * size)
            flow.edge(into, wanted, math.inf)
        flow.edge(wanted, start, QUANTIZE * size)
    integers = flow.source_side()
    integers -= _pooled_for_float(graph, integers, {*moves, *transparent}, linear)
    return Regions(
        frozenset(call.index for call in graph.calls if fused.get(call.index, call.index) in integers),
        frozenset(linear),
        frozenset(fused),
    )


def _streams(graph: CallGraph, passing: Collection[str], fused: Collection[int]) -> set[int]:
    """Residual streams: sums to which a linear layer over tokens adds and that a layer norm reads, and the
    sums behind them."""
    found: set[int] = set()

    def reaches(call: Call, wanted: Callable[[Call], bool], follow: Callable[[Call], list[Call]]) -> bool:
        return any(
            wanted(other)
            or ((other.op in passing or other.index in fused) and reaches(other, wanted, follow))
            for other in follow(call)
        )

    def before(call: Call) -> list[Call]:
        return [made for value in call.inputs if (made := graph.producer(value)) is not None]

    def behind(call: Call) -> list[Call]:
        return [reader for value in call.outputs for reader in graph.consumers(value)]

    for call in graph.calls:
        if (
            call.op == "add"
            and reaches(call, lambda other: other.op == "linear" and len(other.shape) > 2, before)
            and (
                reaches(call, lambda other: other.op == "layer_norm", behind)
                or reaches(call, lambda other: other.index in found, before)
            )
        ):
            found.add(call.index)
    return found


def _pooled_for_float(
    graph: CallGraph, integers: Collection[object], passing: Collection[str], linear: Collection[int]
) -> set[object]:
    """Poolings in integers that only float reads, and what moves their values.

    Pooling writes few values from many: rounding them saves next to nothing and cost a third of the noise in
    poolformer_s12's answers.
    """
    found: set[object] = set()

    def read_by_integers(call: Call, moved: set[object]) -> bool:
        for reader in (reader for value in call.outputs for reader in graph.consumers(value)):
            if reader.op in passing:
                moved.add(reader.index)
                if read_by_integers(reader, moved):
                    return True
            elif reader.index in linear or reader.index in integers:
                return True
        return False

    for call in graph.calls:
        moved: set[object] = {call.index}
        if call.op in _POOLS and call.index in integers and not read_by_integers(call, moved):
            found |= moved
    return found


def _edges(
    graph: CallGraph, fused: dict[int, int], transparent: Collection[str]
) -> list[tuple[int, int | None, list[int]]]:
    """``(value, the call that makes it, the calls that read it)``, past what does nothing and what fuses."""
    found: dict[int, list[int]] = {}
    for call in graph.calls:
        if call.op in transparent or call.index in fused:
            continue
        for value in call.inputs:
            while (producer := graph.producer(value)) is not None and producer.op in transparent:
                value = producer.inputs[0]
            found.setdefault(value, []).append(call.index)
    edges = []
    for value, readers in found.items():
        producer = graph.producer(value)
        edges.append(
            (value, None if producer is None else fused.get(producer.index, producer.index), readers)
        )
    return edges


def _size(graph: CallGraph, value: int) -> int:
    producer = graph.producer(value)
    if producer is not None:
        return math.prod(producer.shape)
    return max((math.prod(call.shape) for call in graph.consumers(value)), default=1)


class _Flow:
    """Maximum flow from ``_SOURCE`` to ``_SINK`` by shortest augmenting paths (Edmonds and Karp 1972)."""

    def __init__(self) -> None:
        self._left: dict[object, dict[object, float]] = {_SOURCE: {}, _SINK: {}}

    def edge(self, start: object, end: object, capacity: float) -> None:
        if capacity <= 0 or start in (end, _SINK) or end == _SOURCE:
            return
        forward = self._left.setdefault(start, {})
        forward[end] = forward.get(end, 0.0) + capacity
        self._left.setdefault(end, {}).setdefault(start, 0.0)

    def source_side(self) -> set[object]:
        """What the source still reaches once the flow is at its maximum."""
        while True:
            came = self._search()
            if _SINK not in came:
                return set(came)
            path, at = [], _SINK
            while at != _SOURCE:
                path.append((came[at], at))
                at = came[at]  # type: ignore[assignment]
            least = min(self._left[start][end] for start, end in path)
            if math.isinf(least):
                raise ValueError("an operation that must run in integers and must not")
            for start, end in path:
                self._left[start][end] -= least
                self._left[end][start] += least

    def _search(self) -> dict[object, object]:
        came: dict[object, object] = {_SOURCE: _SOURCE}
        queue: deque[object] = deque([_SOURCE])
        while queue:
            at = queue.popleft()
            for nearby, capacity in self._left[at].items():
                if capacity > 1e-6 and nearby not in came:
                    came[nearby] = at
                    if nearby == _SINK:
                        return came
                    queue.append(nearby)
        return came
