"""Graph passes that turn a traced fake-quant graph into the Q/DQ layout that a runtime fuses.

Each pass is a function on a ``ModelProto``, in place, that keeps the function the graph computes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_WEIGHTED = ("Conv", "Gemm", "MatMul", "ConvTranspose")


class Graph:
    """Name lookups over a ``GraphProto``; rebuilt by whoever changes edges."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.graph = proto.graph
        self.refresh()

    def refresh(self) -> None:
        self.producer = {name: node for node in self.graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        self.outputs = {value.name for value in self.graph.output}

    def constant(self, name: str) -> np.ndarray | None:
        """The value of an initialiser or a Constant node."""
        if name in self.initializers:
            return numpy_helper.to_array(self.initializers[name])
        node = self.producer.get(name)
        if node is not None and node.op_type == "Constant":
            return next((numpy_helper.to_array(a.t) for a in node.attribute if a.name == "value"), None)
        if node is not None and node.op_type == "Identity":
            return self.constant(node.input[0])
        return None

    def add_constant(self, name: str, value: np.ndarray) -> str:
        if name in self.initializers:
            raise ValueError(f"duplicate initializer {name}")
        tensor = numpy_helper.from_array(np.ascontiguousarray(value), name)
        self.graph.initializer.append(tensor)
        self.initializers[name] = self.graph.initializer[-1]
        return name

    def nodes(self, *op_types: str) -> Iterator[onnx.NodeProto]:
        return (node for node in list(self.graph.node) if node.op_type in op_types)

    def insert_before(self, reader: onnx.NodeProto, node: onnx.NodeProto) -> None:
        position = next(k for k, n in enumerate(self.graph.node) if n is reader or n == reader)
        self.graph.node.insert(position, node)

    def rename_input(self, old: str, new: str) -> None:
        for node in self.readers.get(old, []):
            for k, name in enumerate(node.input):
                if name == old:
                    node.input[k] = new
        self.readers.setdefault(new, []).extend(self.readers.pop(old, []))


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
        axis = next((a.i for a in quantize.attribute if a.name == "axis"), 1)
        (dequantize,) = graph.readers[quantize.output[0]]
        shape = [-1 if k == axis else 1 for k in range(weight.ndim)]
        integer = np.clip(np.rint(weight / scale.reshape(shape)), -128, 127).astype(np.int8)
        readers = graph.readers.get(dequantize.output[0], [])
        if len(readers) == 1 and readers[0].op_type == "Transpose":
            transpose = readers[0]
            order = list(next(a.ints for a in transpose.attribute if a.name == "perm"))
            integer, axis = np.transpose(integer, order), order.index(axis)
            graph.rename_input(transpose.output[0], dequantize.output[0])
            proto.graph.node.remove(transpose)
        stem = quantize.input[0].replace(".parametrizations", "").replace(".weight.original", ".weight")
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


def quantize_biases(proto: onnx.ModelProto) -> int:
    """Float biases of integer convolutions and Gemms become int32 with scale ``input * weight``.

    Where a channel's scale is so small that its bias leaves int32 (a dead channel), the bias stays float
    in the whole layer: rounding it would change the function. Returns how many were written.
    """
    graph, count = Graph(proto), 0
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
        scale = (input_scale.astype(np.float64) * weight_scale.astype(np.float64)).astype(np.float32)
        integer = np.rint(bias.astype(np.float64) / np.maximum(scale, np.finfo(np.float32).tiny))
        if np.abs(integer).max(initial=0) >= 2**31:
            continue
        stem = node.input[2]
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
    """``ReduceMean`` over height and width becomes ``GlobalAveragePool``, which has an integer kernel."""
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
        output = node.output[0]
        if not keep:
            node.output[0] = f"{output}_pooled"
            flatten = helper.make_node(
                "Flatten", [node.output[0]], [output], name=f"{node.name}_flatten", axis=1
            )
            position = list(proto.graph.node).index(node)
            proto.graph.node.insert(position + 1, flatten)
        node.op_type = "GlobalAveragePool"
        del node.attribute[:]
        del node.input[1:]
        count += 1
    return count


def drop_unused(proto: onnx.ModelProto) -> None:
    """Remove nodes and initialisers that nothing reads."""
    while True:
        read = {name for node in proto.graph.node for name in node.input} | {
            v.name for v in proto.graph.output
        }
        dead = [node for node in proto.graph.node if not any(name in read for name in node.output)]
        for node in dead:
            proto.graph.node.remove(node)
        if not dead:
            break
    unused = [tensor for tensor in proto.graph.initializer if tensor.name not in read]
    for tensor in unused:
        proto.graph.initializer.remove(tensor)


def integer_type(name: str) -> int:
    return {"int8": TensorProto.INT8, "uint8": TensorProto.UINT8}[name]
