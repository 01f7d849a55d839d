"""Linear layers over many rows as 1x1 convolutions.

ONNX Runtime's integer convolution rounds its sums on the way and packs its weights for that; its integer
matrix product writes sums first and turns them into float afterwards, one pass more. Measured (AVX512-VNNI,
one thread, QGemm with a float result against QLinearConv with an integer one): 197 x 192 -> 768 164 and 109
us, 784 x 128 -> 512 404 and 199, 3136 x 96 -> 288 1001 and 387, 49 x 768 -> 2304 368 and 312. Few tokens and
weights larger than the cache are the exception: 49 x 768 -> 3072 570 and 663.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekd.export.graph import Graph, drop_unused


def round_before_reshape(proto: onnx.ModelProto) -> int:
    """``Gemm -> Reshape -> Q -> DQ`` becomes ``Gemm -> Q -> Reshape -> DQ``: the product writes integers, and
    integers are reshaped. Returns how many."""
    graph, count = Graph(proto), 0
    for reshape in graph.nodes("Reshape"):
        product = graph.producer.get(reshape.input[0])
        quantize = graph.only_reader(reshape.output[0], "QuantizeLinear")
        if product is None or product.op_type != "Gemm" or quantize is None:
            continue
        if graph.only_reader(product.output[0], "Reshape") is None or not _one_scale(graph, quantize):
            continue
        integers = quantize.output[0]
        quantize.input[0], quantize.output[0] = product.output[0], f"{integers}_flat"
        reshape.input[0], reshape.output[0] = f"{integers}_flat", integers
        nodes = list(proto.graph.node)
        proto.graph.node.remove(quantize)
        proto.graph.node.insert(nodes.index(reshape), quantize)
        graph.refresh()
        count += 1
    return count


def gemms_to_convolutions(proto: onnx.ModelProto) -> int:
    """``DQ -> Gemm -> Q -> Reshape`` over rows becomes a convolution of an image one pixel high.

    The transpositions around it are those that the runtime puts around its channels-last convolution, the
    other way: nothing is moved. A classifier, whose single row goes out as float, stays a Gemm.
    Returns how many.
    """
    graph, count = Graph(proto), 0
    images: dict[str, str] = {}
    for product in graph.nodes("Gemm"):
        data, weight = (graph.producer.get(name) for name in product.input[:2])
        quantize = graph.only_reader(product.output[0], "QuantizeLinear")
        reshape = graph.only_reader(quantize.output[0], "Reshape") if quantize is not None else None
        if data is None or data.op_type != "DequantizeLinear" or not _one_scale(graph, data):
            continue
        if weight is None or quantize is None or reshape is None or not _turn_weight(graph, product, weight):
            continue
        stem = product.name.rpartition("/")[0]
        rows = data.input[0]
        if rows not in images:
            images[rows] = _as_image(graph, rows)
        pixels = f"{product.output[0]}_read"
        outputs = [f"{quantize.output[0]}_image", f"{quantize.output[0]}_last"]
        convolution = helper.make_node(
            "Conv", [pixels, *product.input[1:]], [product.output[0]], name=f"{stem}/Conv"
        )
        before = helper.make_node(
            "DequantizeLinear", [images[rows], *data.input[1:]], [pixels], name=f"{stem}/{pixels}"
        )
        behind = helper.make_node(
            "Transpose", outputs[:1], outputs[1:], name=f"{stem}/Transpose_last", perm=[0, 2, 3, 1]
        )
        quantize.output[0], reshape.input[0] = outputs
        product.CopyFrom(convolution)
        graph.insert_before(product, before)
        graph.insert_before(reshape, behind)
        graph.refresh()
        count += 1
    drop_unused(proto)
    return count


def _as_image(graph: Graph, rows: str) -> str:
    """Rows ``(tokens, channels)`` of integers as ``(1, channels, 1, tokens)``."""
    producer = graph.producer.get(rows)
    source = producer.input[0] if producer is not None and producer.op_type == "Reshape" else rows
    width = _width(graph, producer)
    image, last = f"{rows}_image", f"{rows}_last"
    if width is None:
        source, shaped = rows, helper.make_node("Unsqueeze", [rows, _axes(graph)], [last], name=last)
    else:
        shape = graph.add_constant(f"{last}_shape", np.array([1, 1, -1, width]))
        shaped = helper.make_node("Reshape", [source, shape], [last], name=last)
    nodes = list(graph.graph.node)
    position = nodes.index(producer) + 1 if producer is not None else 0
    moved = helper.make_node("Transpose", [last], [image], name=image, perm=[0, 3, 1, 2])
    graph.graph.node.insert(position, moved)
    graph.graph.node.insert(position, shaped)
    return image


def _width(graph: Graph, reshape: onnx.NodeProto | None) -> int | None:
    """The channels of rows that a Reshape to ``(-1, channels)`` makes."""
    target = (
        graph.constant(reshape.input[1]) if reshape is not None and reshape.op_type == "Reshape" else None
    )
    return int(target[1]) if target is not None and target.tolist()[:1] == [-1] and target.size == 2 else None


def _axes(graph: Graph) -> str:
    name = "rows_to_image_axes"
    return name if name in graph.initializers else graph.add_constant(name, np.array([0, 1]))


def _turn_weight(graph: Graph, product: onnx.NodeProto, dequantize: onnx.NodeProto) -> bool:
    """The stored matrix as ``(out, in, 1, 1)``; False, with nothing changed, where it is shared or not int8."""
    stored = graph.initializers.get(dequantize.input[0])
    attributes = {a.name: a for a in product.attribute}
    plain = all(attributes[name].f == 1 for name in ("alpha", "beta") if name in attributes)
    turned = "transA" in attributes and attributes["transA"].i == 1
    if dequantize.op_type != "DequantizeLinear" or stored is None or not plain or turned:
        return False
    if any(len(graph.readers[name]) > 1 for name in (dequantize.input[0], dequantize.output[0])):
        return False
    if len(product.input) > 2 and graph.constant(product.input[2]) is None:
        return False
    weight, outputs = (
        numpy_helper.to_array(stored),
        0 if "transB" in attributes and attributes["transB"].i else 1,
    )
    axis = next((a for a in dequantize.attribute if a.name == "axis"), None)
    if weight.ndim != 2 or axis is None or axis.i % 2 != outputs:
        return False
    weight = np.moveaxis(weight, outputs, 0)[:, :, None, None]
    stored.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(weight), stored.name))
    axis.i = 0
    return True


def _one_scale(graph: Graph, node: onnx.NodeProto) -> bool:
    scale = graph.constant(node.input[1])
    return scale is not None and scale.size == 1
