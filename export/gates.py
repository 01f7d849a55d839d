"""Gates as integer operations."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from edgekd.export.graph import Graph, drop_unused


def add_hard_sigmoids(proto: onnx.ModelProto) -> int:
    """``DQ -> HardSigmoid -> Q`` becomes ``Add(DQ with the slope in its scale, offset) -> Q``; returns how many.

    A hard sigmoid is a line between two clips. Where the quantization behind it reaches from 0 to at most 1,
    its saturation is the clips, and the line is an addition, which has an integer kernel (HardSigmoid has
    none). ``x * hardsigmoid(x)``, HardSwish, so becomes one integer addition and one multiplication.
    """
    graph, count = Graph(proto), 0
    for node in graph.nodes("HardSigmoid"):
        data = graph.producer.get(node.input[0])
        readers = graph.readers.get(node.output[0], [])
        if data is None or data.op_type != "DequantizeLinear" or node.output[0] in graph.outputs:
            continue
        if len(readers) != 1 or not _within_zero_and_one(graph, readers[0]):
            continue
        scale, zero = graph.constant(data.input[1]), graph.constant(data.input[2])
        if scale is None or zero is None or scale.size != 1:
            continue
        alpha, beta = (_attribute(node, name, value) for name, value in (("alpha", 0.2), ("beta", 0.5)))
        stem = graph.fresh_stem(node.output[0], "_slope")
        slope = graph.add_constant(f"{stem}_slope", np.array(float(scale.item()) * alpha, np.float32))
        one = graph.add_constant(f"{stem}_one", np.ones((), zero.dtype))
        offset = graph.add_constant(f"{stem}_offset", np.array(beta, np.float32))
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


def _within_zero_and_one(graph: Graph, node: onnx.NodeProto) -> bool:
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


def _attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    return next((a.f for a in node.attribute if a.name == name), default)
