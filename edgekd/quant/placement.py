"""Where activations are quantized: a plan read off the call graph, one rule table, no architecture names.

The rule is ONNX Runtime's: an operation runs in integers when *every* activation it reads and the one it
writes carry Q/DQ. A ReLU after a convolution, linear layer or add disappears into the quantization after
it, so the tensor between them is left alone. Operations that only move values (flatten, transpose, max
pooling) keep the scale of what they move.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from edgekd.models.calls import Call, CallGraph, Site

WEIGHTED = frozenset({"conv2d", "linear"})
INTEGER_OPS = WEIGHTED | {
    "add",
    "mul",
    "cat",
    "matmul",
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "max_pool2d",
    "mean",
}
FUSES_ACTIVATION = WEIGHTED | {"add"}
FUSED_ACTIVATIONS = frozenset({"relu", "hardtanh", "clamp"})
MOVES_VALUES = frozenset(
    {"flatten", "reshape", "view", "reshape_as", "permute", "transpose", "contiguous", "squeeze", "unsqueeze",
     "__getitem__", "chunk", "split", "unbind", "max_pool2d", "dropout", "channel_shuffle", "pad"}
)  # fmt: skip
_TWO_TENSORS = frozenset({"add", "mul", "matmul"})

INPUT = Site("", "input", 0)


@dataclass(frozen=True)
class Placement:
    """``points`` maps the call whose output is quantized (or :data:`INPUT`) to the call whose range it uses."""

    points: dict[Site, Site]

    @property
    def ranges(self) -> list[Site]:
        """The distinct ranges, in forward order of their first use."""
        return list(dict.fromkeys(self.points.values()))


def plan_placement(graph: CallGraph, float_layers: Collection[str] = ()) -> Placement:
    """Decide which values carry Q/DQ.

    Args:
        graph: of the network with batch norms folded.
        float_layers: module names whose convolution or linear layer stays in float.
    """
    wanted: set[int] = set()
    for call in graph.calls:
        if not _runs_in_integers(call, float_layers):
            continue
        wanted.update(call.inputs)
        wanted.update(_quantized_output(graph, call))
    root: dict[int, int] = {}
    for value in sorted(wanted):
        _root(graph, value, root)
    wanted.update(root.values())
    for value in list(wanted):
        root.setdefault(value, value)
    # The logits stay float: the last integer kernel writes them directly, at no cost in accuracy.
    points = {
        _site(graph, value): _site(graph, root[value])
        for value in sorted(wanted)
        if value not in graph.result
    }
    return Placement(points)


def _runs_in_integers(call: Call, float_layers: Collection[str]) -> bool:
    if call.op not in INTEGER_OPS or (call.op in _TWO_TENSORS and len(call.inputs) < 2):
        return False
    return not (call.op in WEIGHTED and call.site.module in float_layers)


def _quantized_output(graph: CallGraph, call: Call) -> tuple[int, ...]:
    reader = graph.sole_consumer(call)
    if call.op in FUSES_ACTIVATION and reader is not None and reader.op in FUSED_ACTIVATIONS:
        return reader.outputs
    return call.outputs


def _root(graph: CallGraph, value: int, known: dict[int, int]) -> int:
    """Follow operations that only move values back to the value whose range they keep."""
    if value not in known:
        producer = graph.producer(value)
        if producer is not None and producer.op in MOVES_VALUES and producer.inputs:
            known[value] = _root(graph, producer.inputs[0], known)
        else:
            known[value] = value
    return known[value]


def _site(graph: CallGraph, value: int) -> Site:
    producer = graph.producer(value)
    return INPUT if producer is None else producer.site
