"""Evaluate what does not depend on the input: shape arithmetic that the exporter leaves in the graph."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgekd.export.graph import Graph, drop_unused
from edgekd.export.shapes import known_shapes

# Q/DQ on a weight is constant too, and must stay.
_STAYS = frozenset({"Constant", "QuantizeLinear", "DequantizeLinear", "Identity"})
_DEFAULTS = tuple(np.array(k) for k in (0, 0, 0, 1))  # of Slice: start, end, axis, step
_LARGEST = 1 << 20  # bytes of a result; a broadcast constant would only make the file larger


def fold_constants(proto: onnx.ModelProto, shapes: dict[str, list[int]] | None = None) -> int:
    """Nodes whose inputs are all constant become initialisers; returns how many went.

    Sizes of height, width and channels count as constant: ``Gather(Shape(x), 2)`` is folded where shape
    inference knows that dimension, again and again until nothing more is known. The batch stays dynamic.

    Args:
        shapes: takes the shapes of the values that became constant, those included that nothing reads any more.
    """
    total = 0
    while (count := _fold_sizes(proto) + _fold_nodes(proto, shapes)) > 0:
        total += count
    drop_unused(proto)
    return total


def _fold_nodes(proto: onnx.ModelProto, shapes: dict[str, list[int]] | None) -> int:
    graph, count = Graph(proto), 0
    for node in graph.nodes(*{n.op_type for n in proto.graph.node} - _STAYS):
        if not node.input or len(node.output) != 1 or any(a.type == a.GRAPH for a in node.attribute):
            continue
        values = {name: graph.constant(name) for name in node.input if name}
        if any(value is None for value in values.values()):
            continue
        if sum(value.nbytes for value in values.values() if value is not None) > _LARGEST:
            continue
        result = _evaluate(node, values, proto)
        if result is None or result.nbytes > _LARGEST or node.output[0] in graph.outputs:
            continue
        proto.graph.node.remove(node)
        graph.add_constant(node.output[0], result)
        if shapes is not None:
            shapes[node.output[0]] = list(result.shape)
        graph.producer.pop(node.output[0])
        count += 1
    return count


def _fold_sizes(proto: onnx.ModelProto) -> int:
    if not any(node.op_type == "Shape" for node in proto.graph.node):
        return 0
    shapes = known_shapes(proto)
    graph, count = Graph(proto), 0
    for node in graph.nodes("Gather", "Slice"):
        source, index = graph.producer.get(node.input[0]), graph.constant(node.input[1])
        if source is None or source.op_type != "Shape" or source.attribute or index is None:
            continue
        dims = shapes.get(source.input[0])
        if node.op_type == "Slice":
            index = _sliced(graph, node, len(dims or []))
        wanted = [dims[k] if dims and -len(dims) <= k < len(dims) else None for k in index.flatten().tolist()]
        if not wanted or not all(isinstance(size, int) for size in wanted) or node.output[0] in graph.outputs:
            continue
        proto.graph.node.remove(node)
        graph.add_constant(node.output[0], np.array(wanted, np.int64).reshape(index.shape))
        count += 1
    return count


def _sliced(graph: Graph, node: onnx.NodeProto, length: int) -> np.ndarray:
    """The positions that a Slice of a shape takes; none where they are not constant."""
    bounds = [graph.constant(name) for name in node.input[1:]]
    if any(bound is None for bound in bounds):
        return np.empty(0, np.int64)
    start, end, _, step = (
        int(bound.item()) for bound in (*bounds, *_DEFAULTS[len(bounds) :]) if bound is not None
    )
    return np.arange(length)[start:end:step]


def _evaluate(
    node: onnx.NodeProto, values: dict[str, np.ndarray | None], proto: onnx.ModelProto
) -> np.ndarray | None:
    inputs = [numpy_helper.from_array(value, name) for name, value in values.items() if value is not None]
    graph = helper.make_graph(
        [node],
        "one",
        [],
        [helper.make_tensor_value_info(node.output[0], onnx.TensorProto.UNDEFINED, None)],
        inputs,
    )
    try:
        model = helper.make_model(graph, opset_imports=proto.opset_import)
        (result,) = ReferenceEvaluator(model).run(None, {})
    except (RuntimeError, ValueError, TypeError, IndexError):
        return None  # an operator that the reference does not know stays in the graph
    return np.asarray(result) if isinstance(result, np.ndarray | np.generic) else None
