"""Graph passes that turn a traced fake-quant graph into the Q/DQ layout that a runtime fuses.

Each pass is a function on a ``ModelProto``, in place, that keeps the function the graph computes.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from edgekd.export.graph import Graph, attribute, drop_unused


def store_integer_weights(proto: onnx.ModelProto) -> list[str]:
    """``float weight -> Q -> DQ [-> Transpose]`` becomes ``int8 initialiser -> DQ``; returns the names.

    A transpose (how a 3-D linear layer is traced) moves into the integers, so DQ feeds the product.
    """
    graph, written = Graph(proto), []
    for quantize in graph.nodes("QuantizeLinear"):
        weight = graph.constant(quantize.input[0])
        if weight is None or weight.ndim < 2:
            continue
        scale = graph.constant(quantize.input[1])
        assert scale is not None
        axis = attribute(quantize, "axis", 1)
        (dequantize,) = graph.readers[quantize.output[0]]
        shape = [-1 if k == axis else 1 for k in range(weight.ndim)]
        integer = np.clip(np.rint(weight / scale.reshape(shape)), -128, 127).astype(np.int8)
        readers = graph.readers.get(dequantize.output[0], [])
        if len(readers) == 1 and readers[0].op_type == "Transpose":
            transpose = readers[0]
            order = attribute(transpose, "perm")
            integer, axis = np.transpose(integer, order), order.index(axis)
            graph.rename_input(transpose.output[0], dequantize.output[0])
            proto.graph.node.remove(transpose)
        stem = quantize.input[0].replace(".parametrizations", "").replace(".weight.original", ".weight")
        stem = graph.fresh_stem(stem, "_int8")
        name = graph.add_constant(f"{stem}_int8", integer)
        zero = graph.add_constant(f"{stem}_zero_point", np.zeros(len(scale), np.int8))
        factor = graph.add_constant(f"{stem}_scale", scale.astype(np.float32))
        dequantize.input[:] = [name, factor, zero]
        del dequantize.attribute[:]
        dequantize.attribute.append(helper.make_attribute("axis", axis))
        proto.graph.node.remove(quantize)
        graph.refresh()
        written.append(name)
    drop_unused(proto)
    return written


def absorb_clips(proto: onnx.ModelProto) -> int:
    """Remove a ReLU or clip whose only reader is a quantization that already cuts off the same values."""
    graph, count = Graph(proto), 0
    for node in graph.nodes("Relu", "Clip"):
        readers = graph.readers.get(node.output[0], [])
        if len(readers) != 1 or readers[0].op_type != "QuantizeLinear" or node.output[0] in graph.outputs:
            continue
        scale, zero = graph.constant(readers[0].input[1]), graph.constant(readers[0].input[2])
        if scale is None or zero is None or zero.size != 1:
            continue
        limits = np.iinfo(zero.dtype)
        low = (limits.min - int(zero)) * float(scale)
        high = (limits.max - int(zero)) * float(scale)
        bounds = _bounds(graph, node)
        # One part in a million: a range learned at a clip's bound meets it up to float rounding.
        if bounds is None or low < bounds[0] - 1e-6 or high > bounds[1] * (1 + 1e-6):
            continue
        graph.rename_input(node.output[0], node.input[0])
        proto.graph.node.remove(node)
        graph.refresh()
        count += 1
    return count


def _bounds(graph: Graph, node: onnx.NodeProto) -> tuple[float, float] | None:
    if node.op_type == "Relu":
        return 0.0, float("inf")
    edges = []
    for position, default in ((1, -float("inf")), (2, float("inf"))):
        name = node.input[position] if len(node.input) > position else ""
        value = graph.constant(name) if name else np.asarray(default)
        if value is None:
            return None
        edges.append(float(value))
    return edges[0], edges[1]


def pool_spatial_means(proto: onnx.ModelProto) -> int:
    """``ReduceMean`` over height and width becomes ``GlobalAveragePool``, which has an integer kernel.

    Returns how many.
    """
    shapes = {
        v.name: v.type.tensor_type.shape for v in onnx.shape_inference.infer_shapes(proto).graph.value_info
    }
    graph, count = Graph(proto), 0
    for node in graph.nodes("ReduceMean"):
        attributes = {a.name: a for a in node.attribute}
        if "axes" in attributes:
            axes = list(attributes["axes"].ints)
        else:
            constant = graph.constant(node.input[1]) if len(node.input) > 1 else None
            axes = [] if constant is None else constant.tolist()
        shape = shapes.get(node.input[0])
        if shape is None or len(shape.dim) != 4 or sorted(a % 4 for a in axes) != [2, 3]:
            continue
        keep = attributes["keepdims"].i if "keepdims" in attributes else 1
        if not keep:
            _flatten_after(graph, node)
        node.op_type = "GlobalAveragePool"
        del node.attribute[:]
        del node.input[1:]
        count += 1
    return count


def _flatten_after(graph: Graph, node: onnx.NodeProto) -> None:
    """Append ``Flatten`` to a pooling node. A quantization behind it is repeated before it: the runtime fuses
    the pooling with the Q/DQ that follows at once, and moves values such as Flatten's between two pairs."""
    output = node.output[0]
    readers = graph.readers.get(output, [])
    node.output[0] = value = f"{output}_pooled"
    added = []
    if len(readers) == 1 and readers[0].op_type == "QuantizeLinear":
        for kind in ("QuantizeLinear", "DequantizeLinear"):
            result = f"{output}_{kind}"
            added.append(
                helper.make_node(kind, [value, *readers[0].input[1:]], [result], name=f"{node.name}_{kind}")
            )
            value = result
    added.append(helper.make_node("Flatten", [value], [output], name=f"{node.name}_flatten", axis=1))
    position = list(graph.graph.node).index(node) + 1
    for offset, new in enumerate(added):
        graph.graph.node.insert(position + offset, new)
