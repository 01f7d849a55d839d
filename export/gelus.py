"""GELU as the integer operations that :mod:`edgekd.quant.gelu` simulates."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from edgekd.export.graph import Graph, drop_unused
from edgekd.quant.gelu import LEAST, MOST, SLOPE, STEPS, lowest_byte


def gelus_to_bytes(proto: onnx.ModelProto) -> int:
    """``DQ(x) -> Mul(slope) -> Sigmoid -> Q -> DQ -> Clip -> Sub -> Mul``, the gate, without a float operation but
    the sigmoid, which is a table; returns how many. Where no byte of ``x`` has less, there is no clip.

    The slope goes into the scale by which the sigmoid reads ``x``, the clip to the integers, the line behind it into
    the scale and the zero point by which the product reads them. The function stays the same.
    """
    graph, count = Graph(proto), 0
    for sigmoid in graph.nodes("Sigmoid"):
        chain = _gate(graph, sigmoid)
        if chain is None:
            continue
        scaled, data, quantize, dequantize, clip, line, product = chain
        stem = graph.fresh_stem(sigmoid.output[0], "_steep")
        scale = graph.constant(data.input[1])
        assert scale is not None
        read, cut, gate = f"{stem}_read", f"{stem}_cut", product.output[0]
        zero = graph.constant(data.input[2])
        clips = zero is None or lowest_byte(float(scale.item()), int(zero.item())) < LEAST
        cut = cut if clips else quantize.output[0]
        names = {
            key: graph.add_constant(f"{stem}_{key}", np.array(value, kind))
            for key, value, kind in (
                ("steep", np.float32(scale.item()) * np.float32(SLOPE), np.float32),
                ("least", LEAST, np.uint8),
                ("step", 1 / (MOST - LEAST), np.float32),
            )
        }
        added = (
            (scaled, "DequantizeLinear", [data.input[0], names["steep"], data.input[2]], read),
            (clip, "Clip", [quantize.output[0], names["least"]], cut),
            (product, "DequantizeLinear", [cut, names["step"], names["least"]], gate),
        )
        for old, kind, inputs, output in added:
            old.CopyFrom(helper.make_node(kind, inputs, [output], name=f"{sigmoid.name}/{kind}_{output}"))
        sigmoid.input[0] = read
        for old in (dequantize, line) if clips else (dequantize, line, clip):
            proto.graph.node.remove(old)
        graph.refresh()
        count += 1
    drop_unused(proto)
    return count


def _gate(graph: Graph, sigmoid: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """The nodes around ``sigmoid``, where they are a gate of GELU on bytes."""
    scaled = graph.producer.get(sigmoid.input[0])
    data = graph.producer.get(scaled.input[0]) if scaled is not None and scaled.op_type == "Mul" else None
    if scaled is None or data is None or data.op_type != "DequantizeLinear":
        return None
    scale = graph.constant(data.input[1])
    found = [scaled, data]
    value = sigmoid.output[0]
    for kind in ("QuantizeLinear", "DequantizeLinear", "Clip", "Sub", "Mul"):
        reader = graph.only_reader(value, kind)
        if reader is None:
            return None
        found.append(reader)
        value = reader.output[0]
    wanted = (
        (scaled, SLOPE), (found[2], 1 / STEPS), (found[4], LEAST / STEPS), (found[5], LEAST / STEPS),
        (found[6], STEPS / (MOST - LEAST)),
    )  # fmt: skip
    if scale is None or scale.size != 1 or not all(_by(graph, node, number) for node, number in wanted):
        return None
    return found


def _by(graph: Graph, node: onnx.NodeProto, number: float) -> bool:
    """``number`` is the constant that ``node`` works with."""
    value = graph.constant(node.input[1]) if len(node.input) > 1 else None
    return value is not None and value.size == 1 and bool(np.isclose(value.item(), number, rtol=1e-6))
