"""Embedding tables looked up as integers."""

from __future__ import annotations

import onnx
from onnx import helper

from edgekd.export.graph import Graph, attribute, drop_unused


def look_up_integers(proto: onnx.ModelProto) -> int:
    """``int8 table -> DequantizeLinear -> Gather`` becomes ``int8 table -> Gather -> DequantizeLinear``.

    The runtime would otherwise turn the whole table into float when it loads the file. Returns how many.
    """
    graph, count = Graph(proto), 0
    for gather in graph.nodes("Gather"):
        dequantize = graph.producer.get(gather.input[0])
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            continue
        table, scale = graph.constant(dequantize.input[0]), graph.constant(dequantize.input[1])
        along = attribute(dequantize, "axis", 1)
        rows = attribute(gather, "axis", 0)
        if table is None or scale is None or table.ndim != 2 or scale.ndim != 1 or (along, rows) != (1, 0):
            continue
        output = gather.output[0]
        gather.input[0] = dequantize.input[0]
        gather.output[0] = f"{output}_integers"
        added = helper.make_node(
            "DequantizeLinear", [gather.output[0], *dequantize.input[1:]], [output],
            name=f"{gather.name}_dequantized", axis=-1,
        )  # fmt: skip
        proto.graph.node.insert(list(proto.graph.node).index(gather) + 1, added)
        graph.refresh()
        count += 1
    drop_unused(proto)
    return count
