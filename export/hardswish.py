"""HardSwish as the integer operations that :mod:`edgekd.quant.hardswish` simulates."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from edgekd.export.graph import Graph, drop_unused
from edgekd.quant.hardswish import HALF_WIDTH, gate_scale


def hardswishes_to_bytes(proto: onnx.ModelProto) -> int:
    """``DQ(x) -> HardSigmoid -> Mul(x)`` becomes ``x -> Clip -> DQ -> Mul(DQ(x))`` where the range of ``x`` begins
    at -3: the clip of integers, the line between them in the scale by which they are read. Returns how many."""
    graph, count = Graph(proto), 0
    for node in graph.nodes("HardSigmoid"):
        data, product = graph.producer.get(node.input[0]), _only_reader(graph, node)
        if data is None or data.op_type != "DequantizeLinear" or product is None:
            continue
        scale, zero = graph.constant(data.input[1]), graph.constant(data.input[2])
        if scale is None or zero is None or zero.size != 1 or node.input[0] not in product.input:
            continue
        steps, most = int(zero.item()), int(np.iinfo(zero.dtype).max)
        if zero.dtype != np.uint8 or not np.isclose(scale.item() * steps, HALF_WIDTH, rtol=1e-6):
            continue
        if not np.allclose(_line(node), (1 / (2 * HALF_WIDTH), 0.5), rtol=1e-6):
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


def _only_reader(graph: Graph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    readers = graph.readers.get(node.output[0], [])
    alone = len(readers) == 1 and readers[0].op_type == "Mul" and node.output[0] not in graph.outputs
    return readers[0] if alone else None


def _line(node: onnx.NodeProto) -> tuple[float, float]:
    """Slope and offset, by default those of ONNX."""
    values = {attribute.name: attribute.f for attribute in node.attribute}
    return values.get("alpha", 0.2), values.get("beta", 0.5)
