"""The network's input has its channels from outside: a Pad of its integers adds the missing ones."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from edgekd.export.channels import ChannelClasses
from edgekd.export.graph import attribute
from edgekd.export.layouts import Multiples
from edgekd.export.spread import spread


def pad_images(proto: onnx.ModelProto, multiples: Multiples) -> None:
    """Pad every input that dense integer convolutions alone read."""
    classes = ChannelClasses(proto)
    graph = classes.graph
    for value in proto.graph.input:
        own = classes.of(value.name)
        if own is None or own.writers or own.depthwise or own.joined or not own.readers:
            continue
        missing = -own.channels % multiples.dense
        quantizers = graph.readers.get(value.name, [])
        chain = [q for q in quantizers if q.op_type == "QuantizeLinear"]
        if not missing or len(chain) != 1 or len(quantizers) != 1:
            continue
        readers = _convolutions_behind(classes, chain[0].output[0])
        if not readers:
            continue
        amounts = graph.add_constant(f"{value.name}_pads", np.array([0, 0, 0, 0, 0, missing, 0, 0]))
        quantized, padded = chain[0].output[0], f"{value.name}_padded"
        behind = graph.readers[quantized]
        graph.insert_before(behind[0], helper.make_node("Pad", [quantized, amounts], [padded], name=padded))
        for reader in behind:
            reader.input[0] = padded
        layout = (*range(own.channels), *(-1,) * missing)
        for node in readers:
            dequantize = classes.weight(node)
            assert dequantize is not None
            spread(graph.initializers[dequantize.input[0]], layout, 1)
        del proto.graph.value_info[:]


def _convolutions_behind(classes: ChannelClasses, quantized: str) -> list[onnx.NodeProto]:
    """The dense integer convolutions that read ``quantized`` through DequantizeLinear; none if others do."""
    found = []
    for dequantize in classes.graph.readers.get(quantized, []):
        for node in classes.graph.readers.get(dequantize.output[0], []):
            group = attribute(node, "group", 1)
            weight = classes.weight(node) if node.op_type == "Conv" and group == 1 else None
            if weight is None or len(classes.graph.constant(weight.input[1])) < 16:  # type: ignore[arg-type]
                return []
            found.append(node)
    return found
