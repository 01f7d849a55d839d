"""Biases as int32, which is what the integer kernels of ONNX Runtime add."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from edgekd.export.graph import Graph, attribute, drop_unused
from edgekd.quant.kernels import MAX_BIAS, scale_for_bias


def fit_biases(proto: onnx.ModelProto) -> tuple[int, list[str]]:
    """Enlarge weight scales until every bias fits into int32 at scale ``input scale * weight scale``.

    A channel whose weights are nearly zero has a scale so small that its bias leaves int32. One such channel
    keeps a layer from fusing, and where the file leaves the bias in float, ONNX Runtime 1.31 quantizes it
    itself and overflows without a word. The integers shrink as the scale grows: zeros stay zeros, and the sum
    of products changes by at most half a step of the new scale for each weight, which is 2**-31 of the bias
    per step of the input.

    Returns:
        How many layers were changed, and one sentence for each that could not be.
    """
    graph, changed = Graph(proto), 0
    notes: list[str] = []
    for dequantize in graph.nodes("DequantizeLinear"):
        scale = graph.constant(dequantize.input[1])
        readers = [node for node in graph.readers.get(dequantize.output[0], []) if _layer(graph, node)]
        if scale is None or not readers or readers[0].input[1] != dequantize.output[0]:
            continue
        needed = np.max([_needed_scale(graph, node) for node in readers], axis=0)
        if not (needed > scale).any():
            continue
        if any(
            name not in graph.initializers or len(graph.readers[name]) > 1 for name in dequantize.input[:2]
        ):
            notes.append(f"{readers[0].name}: a bias leaves int32, and the weight cannot be changed")
            continue
        _enlarge(graph, dequantize, scale, needed)
        changed += 1
    return changed, notes


def quantize_biases(proto: onnx.ModelProto) -> int:
    """Float biases of integer convolutions and Gemms become int32 with scale ``input scale * weight scale``.

    Older runtimes fuse a layer only then. Returns how many were written.
    """
    graph, count = Graph(proto), 0
    for node in graph.nodes("Conv", "Gemm"):
        layer = _layer(graph, node)
        if layer is None:
            continue
        bias, input_scale, weight_scale = layer
        scale = (input_scale.astype(np.float64) * weight_scale.astype(np.float64)).astype(np.float32)
        integer = np.rint(bias.astype(np.float64) / scale)
        if np.abs(integer).max(initial=0) > 2 * MAX_BIAS - 1:
            continue
        stem = graph.fresh_stem(node.input[2], "_int32")
        names = [
            graph.add_constant(f"{stem}_int32", integer.astype(np.int32)),
            graph.add_constant(f"{stem}_scale", scale),
            graph.add_constant(f"{stem}_zero_point", np.zeros(len(scale), np.int32)),
        ]
        output = f"{stem}_dequantized"
        graph.insert_before(node, helper.make_node("DequantizeLinear", names, [output], name=output, axis=0))
        node.input[2] = output
        graph.refresh()
        count += 1
    drop_unused(proto)
    return count


def _layer(graph: Graph, node: onnx.NodeProto) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Float bias, input scale and weight scale of a Conv or Gemm that reads Q/DQ; else None."""
    if node.op_type not in ("Conv", "Gemm") or len(node.input) < 3:
        return None
    bias = graph.constant(node.input[2])
    data, weight = graph.producer.get(node.input[0]), graph.producer.get(node.input[1])
    if bias is None or data is None or weight is None:
        return None
    if data.op_type != "DequantizeLinear" or weight.op_type != "DequantizeLinear":
        return None
    input_scale, weight_scale = graph.constant(data.input[1]), graph.constant(weight.input[1])
    if input_scale is None or weight_scale is None:
        return None
    return bias, input_scale, weight_scale


def _needed_scale(graph: Graph, node: onnx.NodeProto) -> np.ndarray:
    layer = _layer(graph, node)
    assert layer is not None
    bias, input_scale, _ = layer
    return np.abs(bias).astype(np.float64) / (MAX_BIAS * float(input_scale))


def _enlarge(graph: Graph, dequantize: onnx.NodeProto, scale: np.ndarray, needed: np.ndarray) -> None:
    """Raise the scales that are under ``needed`` and shrink their integers."""
    axis = attribute(dequantize, "axis", 1)
    larger = scale_for_bias(torch.tensor(scale), torch.tensor(needed)).numpy()
    integers = numpy_helper.to_array(graph.initializers[dequantize.input[0]])
    shape = [-1 if k == axis else 1 for k in range(integers.ndim)]
    ratio = (scale.astype(np.float64) / larger).reshape(shape)
    shrunk = np.rint(integers * ratio).astype(np.int8)
    for name, value in ((dequantize.input[0], shrunk), (dequantize.input[1], larger)):
        graph.initializers[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))
