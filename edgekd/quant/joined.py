"""Values that are concatenated share the range of the concatenation.

What reads the concatenation sees all of its parts on one grid anyway. Where the parts are made on that grid
their bytes are copied as they are, each value is rounded once, and TensorRT asks for it too. ONNX Runtime's
QLinearConcat looks every byte up otherwise (measured, AVX512-VNNI: twice 24 channels of 112 x 112 pixels 189 us,
85 as they are; twice 336 of 14 x 14 pixels 44 and 15).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping

from edgekd.models.calls import Call, CallGraph

Bounds = tuple[float, float] | None


def join_ranges(
    graph: CallGraph,
    root: Mapping[int, int],
    rounded: Collection[int],
    *,
    integer: Callable[[Call], bool],
    source: Callable[[int], int],
    bounds: Callable[[int], Bounds],
) -> dict[int, tuple[int, Bounds]]:
    """By root value the concatenation whose range it takes, and what none of the parts leaves.

    Left alone: parts of which only some are clipped (a clip disappears from the file only where the range ends
    with it), parts of several concatenations, the network's input, and concatenations of concatenations, which
    would make one range of a whole network.

    Args:
        root: values to those whose range they keep.
        rounded: the values that carry integers.
        integer: whether a call runs in integers.
        source: of a value, past what does nothing.
        bounds: what clips a value, if anything.
    """
    parts = {
        call.index: tuple(dict.fromkeys(root.get(source(value), value) for value in call.inputs))
        for call in graph.calls
        if call.op == "cat"
    }
    uses = Counter(part for found in parts.values() for part in found)
    shared: dict[int, tuple[int, Bounds]] = {}
    for call in graph.calls:
        if call.index not in parts or not integer(call) or call.outputs[0] not in rounded:
            continue
        found = parts[call.index]
        makers = [graph.producer(part) for part in found]
        single = all(maker is not None and maker.op != "cat" for maker in makers)
        limits = {bounds(part) for part in found}
        if not single or len(limits) > 1 or any(uses[part] > 1 or part not in rounded for part in found):
            continue
        shared |= dict.fromkeys(found, (call.outputs[0], limits.pop()))
    return shared
