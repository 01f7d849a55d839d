"""Reshapes in a row are one: general code cuts and puts together in many steps what a file can say in one."""

from __future__ import annotations

import numpy as np
import onnx

from edgekd.export.graph import Graph, attribute, drop_unused

_VIEWS = ("Reshape", "Flatten")


def join_views(proto: onnx.ModelProto) -> int:
    """Let a Reshape read what the Reshape or Flatten before it reads; returns how many went.

    Integers may be read or written between the two, as long as nothing is rounded by that: the values are on that very
    grid. Each view takes no time but its dispatch, which is a twentieth of a small transformer's inference.
    """
    count = 0
    while any(_join(graph, node) for graph in [Graph(proto)] for node in graph.nodes("Reshape")):
        drop_unused(proto)
        count += 1
    return count


def _join(graph: Graph, node: onnx.NodeProto) -> bool:
    target = graph.constant(node.input[1])
    if target is None or attribute(node, "allowzero", 0):
        return False
    reader, first = node, graph.producer.get(node.input[0])
    if first is not None and first.op_type == "DequantizeLinear" and _alone(graph, first):
        reader, first = first, graph.producer.get(first.input[0])
        if first is not None and first.op_type == "QuantizeLinear" and _alone(graph, first):
            grid = graph.producer.get(first.input[0])
            source = (
                graph.producer.get(grid.input[0]) if grid is not None and grid.op_type in _VIEWS else None
            )
            same = source is not None and source.op_type == "DequantizeLinear"
            if not (same and source is not None and source.input[1:] == first.input[1:] == reader.input[1:]):
                return False
            reader, first = node, grid
    if first is None or first.op_type not in _VIEWS or not _alone(graph, first):
        return False
    wanted = _resolved(graph, target, first)
    if wanted is None:
        return False
    if not np.array_equal(wanted, target):
        node.input[1] = graph.add_constant(f"{graph.fresh_stem(node.output[0], '_shape')}_shape", wanted)
    reader.input[0] = first.input[0]
    return True


def _alone(graph: Graph, node: onnx.NodeProto) -> bool:
    return graph.only_reader(node.output[0]) is not None


def _resolved(graph: Graph, target: np.ndarray, first: onnx.NodeProto) -> np.ndarray | None:
    """``target`` without zeros, which stand for sizes of what ``first`` writes; None where they are not known."""
    wanted = target.copy()
    if not (wanted == 0).any():
        return wanted
    if first.op_type == "Flatten":
        # One size alone is the same before and behind it: the batch.
        return (
            wanted
            if attribute(first, "axis", 1) == 1 and np.flatnonzero(wanted == 0).tolist() == [0]
            else None
        )
    before = graph.constant(first.input[1])
    if before is None or attribute(first, "allowzero", 0):
        return None
    for k in np.flatnonzero(wanted == 0):
        if k >= len(before):
            return None
        wanted[k] = before[k]
    return wanted if (wanted == -1).sum() <= 1 else None
