"""Factors for each channel behind a layer (layer scale), moved into the layer's weights.

In integers the factor goes into the scale of the channel's weights, so the integers, and what was trained,
stay as they are; a negative factor turns their sign.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from edgekd.export.graph import Graph, attribute, drop_unused


def absorb_channel_factors(proto: onnx.ModelProto) -> int:
    """``Conv`` or ``Gemm``, moved or not, then ``Mul`` with a constant for each channel; returns how many went.

    Biases must still be float.
    """
    graph, count = Graph(proto), 0
    for product in graph.nodes("Mul"):
        position = next((k for k, name in enumerate(product.input) if graph.constant(name) is not None), None)
        if position is None or product.output[0] in graph.outputs:
            continue
        factors = graph.constant(product.input[position])
        found = _layer_before(graph, product.input[1 - position])
        if found is None or factors is None:
            continue
        layer, axis, rank = found
        shape = (*[1] * (rank - factors.ndim), *factors.shape)
        if len(shape) != rank or any(size != 1 for k, size in enumerate(shape) if k != axis):
            continue
        if not _scale_layer(graph, layer, factors.astype(np.float32).ravel()):
            continue
        graph.rename_input(product.output[0], product.input[1 - position])
        proto.graph.node.remove(product)
        graph.refresh()
        count += 1
    drop_unused(proto)
    return count


def _layer_before(graph: Graph, value: str) -> tuple[onnx.NodeProto, int, int] | None:
    """The layer that made ``value``, the axis of its channels there, and the rank; None if others read it."""
    orders: list[list[int]] = []
    rank = None
    while len(graph.readers.get(value, [])) == 1 and value not in graph.outputs:
        node = graph.producer.get(value)
        if node is None:
            return None
        if node.op_type == "Transpose" and rank is None:
            orders.append(attribute(node, "perm"))
            value = node.input[0]
        elif node.op_type == "Reshape" and rank is None:
            target = graph.constant(node.input[1])
            before = graph.producer.get(node.input[0])
            if target is None or before is None or before.op_type != "Gemm":
                return None
            rank, value = len(target), node.input[0]
        elif node.op_type in ("Conv", "Gemm"):
            if node.op_type == "Conv":
                rank, axis = 4, 1
            else:
                rank = rank or 2
                axis = rank - 1
            for order in reversed(orders):
                if len(order) != rank:
                    return None
                axis = order.index(axis)
            return node, axis, rank
        else:
            return None
    return None


def _scale_layer(graph: Graph, layer: onnx.NodeProto, factors: np.ndarray) -> bool:
    """Multiply the layer's outputs; False, with nothing changed, where its weight or bias is shared."""
    transposed = any(a.name == "transB" and a.i for a in layer.attribute)
    axis = 0 if layer.op_type == "Conv" or transposed else 1
    dequantize = graph.producer.get(layer.input[1])
    weight, scale = layer.input[1], None
    if dequantize is not None and dequantize.op_type == "DequantizeLinear":
        weight, scale = dequantize.input[0], dequantize.input[1]
    bias = layer.input[2] if len(layer.input) > 2 else None
    owned = [name for name in (weight, scale, layer.input[1]) if name is not None]
    values = graph.constant(weight)
    if values is None or weight not in graph.initializers or any(len(graph.readers[n]) > 1 for n in owned):
        return False
    shift = graph.constant(bias) if bias is not None else None
    if factors.size not in (1, values.shape[axis]) or (bias is not None and shift is None):
        return False
    factors = np.broadcast_to(factors, (values.shape[axis],))
    column = factors.reshape([-1 if k == axis else 1 for k in range(values.ndim)])
    if scale is None:
        _store(graph, weight, (values * column).astype(values.dtype))
    else:
        steps = graph.constant(scale)
        if steps is None or steps.shape != factors.shape or scale not in graph.initializers:
            return False
        _store(graph, weight, (values * np.sign(column)).astype(values.dtype))
        _store(graph, scale, (steps * np.where(factors == 0, 1, np.abs(factors))).astype(np.float32))
    if bias is not None and shift is not None:
        layer.input[2] = graph.add_constant(
            f"{graph.fresh_stem(bias, '_scaled')}_scaled", (shift * factors).astype(np.float32)
        )
    return True


def _store(graph: Graph, name: str, value: np.ndarray) -> None:
    graph.initializers[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))
