"""Multiply-accumulates of an ONNX file's convolutions, linear layers and products of activations."""

from __future__ import annotations

import copy
import math

import onnx

from edgekd.export.constants import fold_constants
from edgekd.export.nbits import OPERATOR
from edgekd.export.weights import LINEARS, stored_weights

_SEQUENCE = 128  # tokens, where the length of a text is dynamic


def count_macs(proto: onnx.ModelProto) -> tuple[dict[str, float], dict[str, float]]:
    """Per sample, by the node's name, as far as its shapes are known.

    Returns:
        Of every node with a weight; of every product of two activations.
    """
    shapes = _shapes_of_one_sample(proto)
    nodes = {node.name: node for node in proto.graph.node}
    layers: dict[str, float] = {}
    weighted = set()
    for weight in stored_weights(proto):
        weighted.add(weight.node)
        shape = shapes.get(nodes[weight.node].output[0])
        if shape is not None:
            layers[weight.node] = float(math.prod(shape)) * weight.products
    products: dict[str, float] = {}
    for node in proto.graph.node:
        if node.op_type in LINEARS and node.name not in weighted:
            shape, left = shapes.get(node.output[0]), shapes.get(node.input[0])
            if shape is not None and left is not None:
                products[node.name] = float(math.prod(shape)) * left[-1]
    return layers, products


def _shapes_of_one_sample(proto: onnx.ModelProto) -> dict[str, list[int]]:
    """Complete shapes alone, for a batch of one."""
    single = copy.deepcopy(proto)
    for value in single.graph.input:
        for position, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                dim.dim_value = 1 if position == 0 else _SEQUENCE
    for value in single.graph.output:
        value.type.tensor_type.ClearField("shape")
    del single.graph.value_info[:]
    _as_plain_products(single.graph)
    shapes: dict[str, list[int]] = {}
    # Sizes that decide how much is sliced off; and what does not depend on the sample, such as a position code.
    fold_constants(single, shapes)
    inferred = onnx.shape_inference.infer_shapes(single, data_prop=True).graph
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if sizes and all(sizes):
            shapes[value.name] = sizes
    return shapes


def _as_plain_products(graph: onnx.GraphProto) -> None:
    """Products with packed weights as MatMul, whose shapes ONNX can infer."""
    for node in graph.node:
        if node.op_type == OPERATOR:
            sizes = {each.name: each.i for each in node.attribute}
            weight = f"{node.output[0]}_plain"
            shape = [sizes["K"], sizes["N"]]
            graph.input.append(onnx.helper.make_tensor_value_info(weight, onnx.TensorProto.FLOAT, shape))
            del node.input[1:], node.attribute[:]
            node.input.append(weight)
            node.op_type, node.domain = "MatMul", ""
