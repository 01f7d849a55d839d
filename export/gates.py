"""Gates as integer operations."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from edgekd.export.channels import static_shapes
from edgekd.export.graph import Graph, attribute, drop_unused

_LARGE = 28 * 28  # pixels: below it a call a pixel costs less than the Tile


def add_hard_sigmoids(proto: onnx.ModelProto) -> int:
    """``DQ -> HardSigmoid -> Q`` becomes ``Add(DQ with the slope in its scale, offset) -> Q``; returns how many.

    A hard sigmoid is a line between two clips. Where the quantization behind it reaches from 0 to at most 1,
    its saturation is the clips, and the line is an addition, which has an integer kernel (HardSigmoid has
    none). ``x * hardsigmoid(x)``, HardSwish, so becomes one integer addition and one multiplication.
    """
    graph, count = Graph(proto), 0
    for node in graph.nodes("HardSigmoid"):
        data = graph.producer.get(node.input[0])
        rounding = graph.only_reader(node.output[0], "QuantizeLinear")
        if data is None or data.op_type != "DequantizeLinear":
            continue
        if rounding is None or not within_zero_and_one(graph, rounding):
            continue
        scale, zero = graph.constant(data.input[1]), graph.constant(data.input[2])
        if scale is None or zero is None or scale.size != 1:
            continue
        alpha, beta = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
        stem = graph.fresh_stem(node.output[0], "_slope")
        slope = graph.add_constant(f"{stem}_slope", np.array(float(scale.item()) * alpha, np.float32))
        # As the largest integer: Arm's kernel keeps 22 bits of the larger factor, and "one" would need a large one.
        most = int(np.iinfo(zero.dtype).max)
        one = graph.add_constant(f"{stem}_one", np.array(most, zero.dtype))
        offset = graph.add_constant(f"{stem}_offset", np.array(beta / most, np.float32))
        none = graph.add_constant(f"{stem}_none", np.zeros((), zero.dtype))
        name = node.name or stem
        line, constant = f"{stem}_line", f"{stem}_constant"
        for inputs, output in (
            ([data.input[0], slope, data.input[2]], line),
            ([one, offset, none], constant),
        ):
            dequantize = helper.make_node("DequantizeLinear", inputs, [output], name=f"{name}/{output}")
            graph.insert_before(node, dequantize)
        node.CopyFrom(helper.make_node("Add", [line, constant], [node.output[0]], name=name))
        graph.refresh()
        count += 1
    drop_unused(proto)
    return count


def within_zero_and_one(graph: Graph, node: onnx.NodeProto) -> bool:
    """``node`` is a quantization whose integers reach from at least 0 to at most 1."""
    if node.op_type != "QuantizeLinear":
        return False
    scale, zero = graph.constant(node.input[1]), graph.constant(node.input[2])
    if scale is None or zero is None or zero.size != 1:
        return False
    limits = np.iinfo(zero.dtype)
    low = (limits.min - int(zero.item())) * float(scale.item())
    high = (limits.max - int(zero.item())) * float(scale.item())
    # One part in a million: the range's edge meets 1 up to float rounding.
    return low >= 0 and high <= 1 + 1e-6


def tile_gates(proto: onnx.ModelProto) -> int:
    """A gate ``(batch, channels, 1, 1)`` of a large image is repeated along a row, in integers.

    ONNX Runtime multiplies channels-last and calls its kernel once for each run of values that lie together:
    once a pixel for a gate of single values, once a row for a gate as wide as the image (measured, 112 x 112
    with 32 channels: 304 us, then 116). Returns how many.
    """
    graph, shapes, count = Graph(proto), static_shapes(proto), 0
    for node in graph.nodes("Mul"):
        for position in (0, 1):
            gate = graph.producer.get(node.input[position])
            own, other = (shapes.get(node.input[k], []) for k in (position, 1 - position))
            if len(own) != 4 or own[2:] != [1, 1] or len(other) != 4 or other[2] * other[3] < _LARGE:
                continue
            if gate is None or gate.op_type != "DequantizeLinear":
                continue
            stem = graph.fresh_stem(node.output[0], "_row")
            repeats = graph.add_constant(f"{stem}_row", np.array([1, 1, 1, other[3]]))
            wide, values = f"{stem}_wide", f"{stem}_gate"
            added = (
                helper.make_node("Tile", [gate.input[0], repeats], [wide], name=wide),
                helper.make_node("DequantizeLinear", [wide, *gate.input[1:]], [values], name=values),
            )
            for new in added:
                graph.insert_before(node, new)
            node.input[position] = values
            graph.refresh()
            count += 1
            break
    drop_unused(proto)
    return count
