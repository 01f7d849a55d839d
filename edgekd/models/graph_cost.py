"""Parameters and multiply-accumulates of an ONNX file, counted from its graph: what a black box costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Shapes = Mapping[str, tuple[int, ...]]


def graph_cost(path: Path, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Count the file for one sample, such as an image of ``(channels, height, width)``.

    Weights are the float and 8-bit initialisers with more than one element. A batch norm that was not folded
    counts with its statistics, which the graph does not tell from weights.

    Returns:
        Parameters, those that are not 0, and multiply-accumulates.
    """
    import onnx
    from onnx import numpy_helper, shape_inference

    model = onnx.load(str(path))
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    fed = [entry for entry in graph.input if entry.name not in weights]
    for dimension, size in zip(fed[0].type.tensor_type.shape.dim, (1, *input_shape), strict=True):
        dimension.dim_value = size
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")  # it may state the batch that was just changed
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes: dict[str, tuple[int, ...]] = {name: tuple(tensor.dims) for name, tensor in weights.items()}
    for entry in [*inferred.value_info, *inferred.output, *fed]:
        dims = entry.type.tensor_type.shape.dim
        if all(dimension.HasField("dim_value") for dimension in dims):
            shapes[entry.name] = tuple(dimension.dim_value for dimension in dims)
    macs = sum(_node_macs(node, shapes) for node in graph.node)
    arrays = [numpy_helper.to_array(tensor) for tensor in weights.values() if math.prod(tensor.dims) > 1]
    kept = [array for array in arrays if array.dtype in (np.float32, np.float16, np.int8, np.uint8)]
    return sum(a.size for a in kept), sum(int(np.count_nonzero(a)) for a in kept), macs


def _node_macs(node: Any, shapes: Shapes) -> int:
    """Output elements times the length of the sum behind each; 0 where a shape is unknown."""
    rule = _RULES.get(node.op_type)
    try:
        return rule(node, shapes) if rule else 0
    except KeyError:
        return 0


def _convolution(weight: int) -> Callable[[Any, Shapes], int]:
    return lambda node, shapes: math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[weight]][1:])


def _product(left: int) -> Callable[[Any, Shapes], int]:
    return lambda node, shapes: math.prod(shapes[node.output[0]]) * shapes[node.input[left]][-1]


def _gemm(node: Any, shapes: Shapes) -> int:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else -1]


def _transposed_convolution(node: Any, shapes: Shapes) -> int:
    return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])


_RULES: dict[str, Callable[[Any, Shapes], int]] = {
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "QLinearConv": _convolution(3),
    "ConvTranspose": _transposed_convolution,
    "MatMul": _product(0),
    "MatMulInteger": _product(0),
    "QLinearMatMul": _product(0),
    "Gemm": _gemm,
}
