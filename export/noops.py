"""Operations that change nothing for the shapes and constants at hand: general code, traced for one case."""

from __future__ import annotations

import numpy as np
import onnx

from edgekd.export.graph import Graph, drop_unused
from edgekd.export.shapes import Size, known_shapes
from edgekd.export.views import join_views


def drop_noops(proto: onnx.ModelProto) -> int:
    """Remove padding by nothing, slices of everything, products with ones, all reshapes in a row but the last.

    Each would copy its tensor at every run, a reshape apart. Returns how many.
    """
    shapes = known_shapes(proto)
    graph, count = Graph(proto), 0
    for node in graph.nodes("Pad", "Slice", "Mul"):
        kept = _unchanged_input(graph, node, shapes)
        if kept is not None and node.output[0] not in graph.outputs:
            graph.rename_input(node.output[0], kept)
            count += 1
    drop_unused(proto)
    return count + join_views(proto)


def _unchanged_input(graph: Graph, node: onnx.NodeProto, shapes: dict[str, list[Size]]) -> str | None:
    """The input that ``node``'s output equals; None where it does something."""
    before, after = shapes.get(node.input[0]), shapes.get(node.output[0])
    if node.op_type == "Pad":
        amounts = graph.constant(node.input[1]) if len(node.input) > 1 else None
        return node.input[0] if amounts is not None and not amounts.any() else None
    if node.op_type == "Slice":
        steps = graph.constant(node.input[4]) if len(node.input) > 4 else np.ones(1)
        forward = steps is not None and bool((steps == 1).all())
        same = before is not None and before == after and None not in before
        return node.input[0] if forward and same else None
    for position in (0, 1):
        factor, other = graph.constant(node.input[position]), node.input[1 - position]
        if factor is not None and (factor == 1).all() and after is not None and shapes.get(other) == after:
            return other if None not in after else None
    return None
