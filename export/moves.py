"""Several moves of axes in a row are one.

MobileViT cuts an image into patches by reshaping it, moving axes, reshaping and moving again, and puts it together the
same way back. The runtime does each step: moves of single bytes, 260 us each for 64 channels of 32 x 32. All of them
together move whole pixels, since the integer convolutions on both sides have the channels last: one step, 15 us.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import helper

from edgekd.export.axes import SampleView
from edgekd.export.graph import Graph, attribute, drop_unused
from edgekd.export.shapes import Size, known_shapes

_ROUNDS = ("QuantizeLinear", "DequantizeLinear")
_MOVES = ("Reshape", "Transpose")
Step = tuple[str, list[int]]  # an operator and its shape or permutation


def join_moves(proto: onnx.ModelProto) -> int:
    """Chains of Reshape and Transpose from an image ``(batch, channels, height, width)`` to something whose last axis
    is its channels, or back, become one Transpose beside that of the layout. Returns how many."""
    if not any(node.op_type == "Transpose" for node in proto.graph.node):
        return 0
    graph, count = Graph(proto), 0
    shapes = known_shapes(proto)
    done: set[str] = set()
    for node in graph.nodes("Reshape"):
        if node.output[0] in done:
            continue
        chain = _chain(graph, node)
        moves = [each for each in chain if each.op_type in _MOVES]
        done.update(each.output[0] for each in moves)
        steps = None
        while steps is None and sum(each.op_type == "Transpose" for each in moves) > 1:
            steps = _as_one(graph, moves, shapes) if moves[0].op_type == "Reshape" else None
            moves = moves if steps is not None else moves[1:]
        if steps is None:
            continue
        rounding = next((each for each in chain if each.op_type == "QuantizeLinear"), None)
        _replace(graph, moves, steps, rounding)
        graph.refresh()
        count += 1
    drop_unused(proto)
    return count


def _chain(graph: Graph, first: onnx.NodeProto) -> list[onnx.NodeProto]:
    """``first`` and what alone reads it, as long as values only move or are rounded as a whole."""
    found = [first]
    while True:
        node = graph.only_reader(found[-1].output[0], *_MOVES, *_ROUNDS)
        if node is None:
            break
        scale = graph.constant(node.input[1]) if node.op_type in _ROUNDS else None
        if node.op_type not in _MOVES and (scale is None or scale.size != 1):
            break
        found.append(node)
    while found[-1].op_type in _ROUNDS:
        found.pop()
    return found


def _as_one(graph: Graph, moves: list[onnx.NodeProto], shapes: dict[str, list[Size]]) -> list[Step] | None:
    """The steps that do what ``moves`` do; None where that is no move of whole pixels."""
    source, target = shapes.get(moves[0].input[0], []), shapes.get(moves[-1].output[0], [])
    image = source if _is_image(source) else target if _is_image(target) else None
    if image is None:
        return None
    sizes = [size for size in image[1:] if isinstance(size, int)]
    view = SampleView(math.prod(sizes), sizes if image is source else [])
    for move in moves:
        if move.op_type == "Transpose":
            known = view.move(attribute(move, "perm", []))
        else:
            known = view.reshape(graph.constant(move.input[1]))
        if not known:
            return None
    if image is source:
        channels, rest = view.parts(0), [*view.parts(1), *view.parts(2)]
        order = view.order()
        if order[-len(channels) :] != channels:
            return None
        return [
            ("Transpose", [0, 2, 3, 1]), ("Reshape", [-1, *view.sizes(rest + channels)]),
            ("Transpose", [0, *(1 + (rest + channels).index(part) for part in order)]),
            ("Reshape", [-1, *view.tail()]),
        ]  # fmt: skip
    first = view.all()
    if len(view.axes) != 4 or view.axes[0]:
        return None
    _, channels, rows, columns = view.axes
    if first[-len(channels) :] != channels:
        return None
    order = rows + columns + channels
    return [
        ("Reshape", [-1, *view.sizes(first)]), ("Transpose", [0, *(1 + first.index(part) for part in order)]),
        ("Reshape", [-1, *sizes[1:], sizes[0]]), ("Transpose", [0, 3, 1, 2]),
    ]  # fmt: skip


def _replace(
    graph: Graph, moves: list[onnx.NodeProto], steps: list[Step], rounding: onnx.NodeProto | None
) -> None:
    """A rounding behind each new step as behind the old ones: so the runtime sees that integers move."""
    value, result, before = moves[0].input[0], moves[-1].output[0], moves[-1]
    stem = graph.fresh_stem(result, "_0_shape")
    for k, (kind, numbers) in enumerate(steps):
        last = k == len(steps) - 1
        made = result if last else f"{stem}_step{k}"
        if kind == "Reshape":
            shape = graph.add_constant(f"{stem}_{k}_shape", np.array(numbers))
            node = helper.make_node("Reshape", [value, shape], [made], name=f"{stem}_{k}")
        else:
            node = helper.make_node("Transpose", [value], [made], name=f"{stem}_{k}", perm=numbers)
        graph.insert_before(before, node)
        value = made
        if rounding is not None and not last:
            for op_type in _ROUNDS:
                output = f"{made}_{op_type[0]}"
                node = helper.make_node(op_type, [value, *rounding.input[1:]], [output], name=output)
                graph.insert_before(before, node)
                value = output
    graph.graph.node.remove(before)


def _is_image(shape: list[Size]) -> bool:
    return len(shape) == 4 and all(isinstance(size, int) for size in shape[1:])
