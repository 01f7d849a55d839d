"""HardSwish and HardSigmoid as the integer operations that :mod:`edgekd.quant.hardswish` simulates."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import helper

from edgekd.export.gates import within_zero_and_one
from edgekd.export.graph import Graph, attribute, drop_unused
from edgekd.quant.hardswish import HALF_WIDTH, gate_scale, on_line


def hardswishes_to_bytes(proto: onnx.ModelProto) -> int:
    """``DQ(x) -> HardSigmoid -> Mul(x)`` becomes ``x -> Clip -> DQ -> Mul(DQ(x))`` where the range of ``x`` begins
    at -3: the clip of integers, the line between them in the scale by which they are read. Returns how many."""
    graph, count = Graph(proto), 0
    for node in graph.nodes("HardSigmoid"):
        data, product = graph.producer.get(node.input[0]), graph.only_reader(node.output[0], "Mul")
        if data is None or data.op_type != "DequantizeLinear" or product is None:
            continue
        scale, zero = graph.constant(data.input[1]), graph.constant(data.input[2])
        if scale is None or zero is None or zero.size != 1 or node.input[0] not in product.input:
            continue
        steps, most = int(zero.item()), int(np.iinfo(zero.dtype).max)
        if zero.dtype != np.uint8 or not np.isclose(scale.item() * steps, HALF_WIDTH, rtol=1e-6):
            continue
        if not _is_usual(node):
            continue
        stem = graph.fresh_stem(node.output[0], "_step")
        gate = data.input[0]
        if 2 * steps < most:
            top = graph.add_constant(f"{stem}_top", np.array(2 * steps, zero.dtype))
            gate = f"{stem}_cut"
            graph.insert_before(node, helper.make_node("Clip", [data.input[0], "", top], [gate], name=gate))
        step = graph.add_constant(f"{stem}_step", np.array(gate_scale(steps), np.float32))
        none = graph.add_constant(f"{stem}_none", np.zeros((), zero.dtype))
        node.CopyFrom(
            helper.make_node("DequantizeLinear", [gate, step, none], [node.output[0]], name=f"{stem}_gate")
        )
        graph.refresh()
        count += 1
    drop_unused(proto)
    return count


def hard_sigmoids_into_convolutions(proto: onnx.ModelProto) -> int:
    """``Conv -> HardSigmoid -> Q`` becomes ``Conv -> Q`` where Q cuts off at 0 and at most 1: the line between is in
    the scales of the convolution's integers, in a copy where others read them, and in its bias. Returns how many."""
    graph, count = Graph(proto), 0
    for node in graph.nodes("HardSigmoid"):
        conv, quantize = (
            graph.producer.get(node.input[0]),
            graph.only_reader(node.output[0], "QuantizeLinear"),
        )
        if conv is None or conv.op_type != "Conv" or graph.only_reader(conv.output[0], "HardSigmoid") is None:
            continue
        if quantize is None or not within_zero_and_one(graph, quantize) or not _is_usual(node):
            continue
        weight = graph.producer.get(conv.input[1])
        scale = graph.constant(weight.input[1]) if weight is not None else None
        bias = graph.constant(conv.input[2]) if len(conv.input) > 2 else None
        if weight is None or weight.op_type != "DequantizeLinear" or scale is None or scale.ndim != 1:
            continue
        if bias is None and len(conv.input) > 2:
            continue
        stem = graph.fresh_stem(node.output[0], "_slope")
        steps, offset = on_line(torch.tensor(scale), None if bias is None else torch.tensor(bias))
        slope = graph.add_constant(f"{stem}_slope", steps.numpy())
        line = graph.add_constant(f"{stem}_offset", offset.numpy())
        copy = onnx.NodeProto()
        copy.CopyFrom(weight)
        copy.name = copy.output[0] = f"{stem}_weight"
        copy.input[1] = slope
        graph.insert_before(conv, copy)
        inputs = [conv.input[0], copy.output[0], line]
        del conv.input[:]
        conv.input.extend(inputs)
        quantize.input[0] = conv.output[0]
        proto.graph.node.remove(node)
        graph.refresh()
        count += 1
    drop_unused(proto)
    return count


def _is_usual(node: onnx.NodeProto) -> bool:
    """The line of torch's; that of ONNX, by default, is another."""
    line = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
    return bool(np.allclose(line, (1 / (2 * HALF_WIDTH), 0.5), rtol=1e-6))
