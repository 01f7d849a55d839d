"""One part is taken out before its axes are moved, not after.

``x.reshape(b, n, 3, heads, width).permute(2, 0, 3, 4, 1).unbind()`` moves four axes to take the parts from the first.
The runtime takes the parts first as well, but keeps their axis of length one, and with it the slowest way to move axes:
1024 x 48 bytes take 175 us, and without that axis 9 (ONNX Runtime 1.31, one thread).
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from edgekd.export.graph import Graph, attribute, drop_unused

_ROUNDS = ("QuantizeLinear", "DequantizeLinear")


def unbind_before_moving(proto: onnx.ModelProto) -> int:
    """``Transpose -> Split -> Squeeze`` of single parts becomes ``Split -> Squeeze -> Transpose``; roundings of the
    whole tensor in between stay where they are. Returns how many."""
    graph, count = Graph(proto), 0
    for move in graph.nodes("Transpose"):
        perm = attribute(move, "perm", [])
        split = _split_behind(graph, move)
        if split is None or not perm:
            continue
        axis = attribute(split, "axis", 0) % len(perm)
        squeezes = [graph.only_reader(part, "Squeeze") for part in split.output]
        taken = [node for node in squeezes if node is not None and _squeezes(graph, node, axis, len(perm))]
        if len(taken) < len(squeezes):
            continue
        from_axis = perm[axis]
        rest = [k - (k > from_axis) for k in perm[:axis] + perm[axis + 1 :]]
        graph.readers[move.output[0]][0].input[0] = move.input[0]
        del split.attribute[:]
        split.attribute.append(helper.make_attribute("axis", from_axis))
        axes = graph.add_constant(f"{graph.fresh_stem(split.output[0], '_axis')}_axis", np.array([from_axis]))
        for squeeze in taken:
            made = squeeze.output[0]
            squeeze.input[1], squeeze.output[0] = axes, f"{made}_taken"
            moved = helper.make_node(
                "Transpose", [f"{made}_taken"], [made], name=f"{squeeze.name}_moved", perm=rest
            )
            proto.graph.node.insert(list(proto.graph.node).index(squeeze) + 1, moved)
        graph.refresh()
        count += 1
    drop_unused(proto)
    return count


def _split_behind(graph: Graph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """The Split that alone reads what ``node`` makes, whole roundings in between."""
    while True:
        reader = graph.only_reader(node.output[0], "Split", *_ROUNDS)
        given = graph.constant(reader.input[1]) if reader is not None and len(reader.input) > 1 else None
        if reader is None or given is None or reader.op_type == "Split":
            return reader if given is not None else None
        if given.size != 1:  # a scale
            return None
        node = reader


def _squeezes(graph: Graph, node: onnx.NodeProto, axis: int, rank: int) -> bool:
    axes = graph.constant(node.input[1]) if len(node.input) > 1 else None
    return axes is not None and axes.size == 1 and int(axes.item()) % rank == axis
