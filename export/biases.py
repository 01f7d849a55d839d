"""Biases as int32, which is what the integer kernels of ONNX Runtime add."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekd.export.graph import Graph, drop_unused

# A kernel adds the bias to the sum of products in int32. Half of int32 for the bias leaves room for
# 2**30 / (255 * 127) = 33,000 products.
_MAX_BIAS = 2**30


def quantize_biases(proto: onnx.ModelProto) -> list[str]:
    """Float biases of integer convolutions and Gemms become int32 with scale ``input scale * weight scale``.

    A channel whose weights are (almost) zero has a scale so small that its bias would leave int32, and one
    such channel would keep the whole layer from fusing. Its weight scale is enlarged until the bias fits,
    and its integers shrink with it: zeros stay zeros, and the sum of products changes by at most half a
    step of the new scale for each weight, which is 2**-31 of the bias per step of the input.

    Returns:
        One sentence for each layer whose scales were enlarged or whose bias had to stay float.
    """
    graph, notes = Graph(proto), []
    for node in graph.nodes("Conv", "Gemm"):
        if len(node.input) < 3:
            continue
        bias = graph.constant(node.input[2])
        data, weight = graph.producer.get(node.input[0]), graph.producer.get(node.input[1])
        if bias is None or data is None or weight is None:
            continue
        if data.op_type != "DequantizeLinear" or weight.op_type != "DequantizeLinear":
            continue
        input_scale, weight_scale = graph.constant(data.input[1]), graph.constant(weight.input[1])
        if input_scale is None or weight_scale is None:
            continue
        needed = np.abs(bias).astype(np.float64) / (_MAX_BIAS * float(input_scale))
        if (needed > weight_scale).any():
            if len(graph.readers[weight.output[0]]) > 1 or not _is_own(graph, weight):
                notes.append(f"{node.name}: the bias stays float, its weight is shared and nearly zero")
                continue
            weight_scale = _enlarge(graph, weight, weight_scale, needed)
            notes.append(f"{node.name}: weight scales of nearly dead channels enlarged for an int32 bias")
        scale = (input_scale.astype(np.float64) * weight_scale.astype(np.float64)).astype(np.float32)
        integer = np.rint(bias.astype(np.float64) / scale).astype(np.int32)
        stem = node.input[2]
        names = [
            graph.add_constant(f"{stem}_int32", integer),
            graph.add_constant(f"{stem}_scale", scale),
            graph.add_constant(f"{stem}_zero_point", np.zeros(len(scale), np.int32)),
        ]
        output = f"{stem}_dequantized"
        graph.insert_before(node, helper.make_node("DequantizeLinear", names, [output], name=output, axis=0))
        node.input[2] = output
        graph.refresh()
    drop_unused(proto)
    return notes


def _is_own(graph: Graph, dequantize: onnx.NodeProto) -> bool:
    """True when integers and scale are initialisers that nothing else reads."""
    return all(name in graph.initializers and len(graph.readers[name]) == 1 for name in dequantize.input[:2])


def _enlarge(graph: Graph, dequantize: onnx.NodeProto, scale: np.ndarray, needed: np.ndarray) -> np.ndarray:
    """Raise the scales that are under ``needed`` and shrink their integers; returns all scales."""
    axis = next((a.i for a in dequantize.attribute if a.name == "axis"), 1)
    larger = np.nextafter(np.maximum(scale, needed).astype(np.float32), np.float32(np.inf))
    larger = np.where(needed > scale, larger, scale).astype(np.float32)
    integers = numpy_helper.to_array(graph.initializers[dequantize.input[0]])
    ratio = (scale.astype(np.float64) / larger).reshape(
        [-1 if k == axis else 1 for k in range(integers.ndim)]
    )
    shrunk = np.rint(integers * ratio).astype(np.int8)
    for name, value in ((dequantize.input[0], shrunk), (dequantize.input[1], larger)):
        graph.initializers[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))
    return larger
