"""Graph passes that make a file small and its names those of the layers; the function stays the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekd.export.graph import Graph, drop_unused

# Larger equal tensors are tied weights or a coincidence; sharing them would join two layers' names.
_SHARED_UP_TO_BYTES = 4096


def tidy(proto: onnx.ModelProto, *, wrapper: str = "") -> None:
    """Constants to shared initialisers, no identities, no doc strings, layers named without ``wrapper.``."""
    hoist_constants(proto)
    drop_identities(proto)
    share_initializers(proto)
    drop_unused(proto)
    name_linear_weights(proto, wrapper=wrapper)
    shorten_names(proto, wrapper=wrapper)
    proto.doc_string = proto.graph.doc_string = ""
    del proto.graph.value_info[:]
    for node in proto.graph.node:
        node.doc_string = ""
    for tensor in proto.graph.initializer:
        tensor.doc_string = ""


def hoist_constants(proto: onnx.ModelProto) -> int:
    """Every Constant node that holds a tensor becomes an initialiser; returns how many."""
    constants = [node for node in proto.graph.node if node.op_type == "Constant"]
    count = 0
    for node in constants:
        tensor = next((a.t for a in node.attribute if a.name == "value"), None)
        if tensor is None:
            continue
        proto.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(tensor), node.output[0]))
        proto.graph.node.remove(node)
        count += 1
    return count


def drop_identities(proto: onnx.ModelProto) -> None:
    """Identity nodes vanish, except one that joins a graph input or initialiser to a graph output."""
    graph = Graph(proto)
    for node in graph.nodes("Identity"):
        if node.output[0] not in graph.outputs:
            graph.rename_input(node.output[0], node.input[0])
            proto.graph.node.remove(node)


def share_initializers(proto: onnx.ModelProto) -> int:
    """Small equal initialisers (scales, zero points) become one; returns how many went."""
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    replaced: dict[str, str] = {}
    for tensor in list(proto.graph.initializer):
        array = numpy_helper.to_array(tensor)
        if array.nbytes > _SHARED_UP_TO_BYTES or (array.dtype == np.int8 and array.ndim > 1):
            continue
        key = (tensor.data_type, tuple(tensor.dims), array.tobytes())
        kept = first.setdefault(key, tensor.name)
        if kept != tensor.name:
            replaced[tensor.name] = kept
            proto.graph.initializer.remove(tensor)
    _rename(proto, lambda name: replaced.get(name, name))
    return len(replaced)


def name_linear_weights(proto: onnx.ModelProto, *, wrapper: str) -> None:
    """A weight that the exporter transposed and called ``onnx::MatMul_12`` gets its layer's name."""
    names = {tensor.name for tensor in proto.graph.initializer}
    renamed: dict[str, str] = {}
    for node in proto.graph.node:
        if node.op_type not in ("MatMul", "Conv", "Gemm"):
            continue
        for position, kind in ((1, "weight"), (2, "bias")):
            anonymous = node.input[position] if len(node.input) > position else ""
            layer = layer_of(node.name)
            name = f"{layer}.{kind}"
            if anonymous.startswith("onnx::") and layer and name not in names and anonymous in names:
                renamed[anonymous] = name
                names.add(name)
    _rename(proto, lambda name: renamed.get(name, name))


def layer_of(node_name: str) -> str:
    """The module whose forward made the node: ``layer1.0.conv1`` of ``/layer1/layer1.0/conv1/Conv``.

    Names that :func:`shorten_names` wrote (``layer1.0.conv1/Conv``) are understood too.
    """
    path: list[str] = []
    for part in node_name.removeprefix("/").split("/")[:-1]:
        if path and part.startswith(f"{path[-1]}."):
            path[-1] = part
        else:
            path.append(part)
    return ".".join(path)


def shorten_names(proto: onnx.ModelProto, *, wrapper: str) -> None:
    """Nodes are called ``layer/Operation`` and their outputs alike; quantization and constants get numbers.

    In a small quantized file the exporter's names of values and constants outweigh the integers.
    """
    kept = {value.name for value in (*proto.graph.input, *proto.graph.output)}
    taken = set(kept)
    short: dict[str, str] = {}
    for tensor in proto.graph.initializer:
        name = tensor.name.removeprefix(f"{wrapper}.") if wrapper else tensor.name
        anonymous = tensor.name.startswith(("/", "onnx::")) or tensor.name.isdecimal()
        short[tensor.name] = f"c{len(short)}" if anonymous else name
        taken.add(short[tensor.name])
    for node in proto.graph.node:
        layer, operation = layer_of(node.name), node.name.rpartition("/")[2]
        if wrapper:
            layer = layer.removeprefix(wrapper).removeprefix(".")
        name = f"{layer}/{operation}" if layer else operation
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            name = f"{node.op_type[0].lower()}{len(short)}"
        if name in taken or not operation:
            name = f"{name}_{len(short)}"
        node.name = name
        taken.add(name)
        for position, value in enumerate(node.output):
            if value and value not in kept:
                short[value] = name if position == 0 else f"{name}:{position}"  # "_1" is the second node
    _rename(proto, lambda name: short.get(name, name))


def strip_batch_norms(proto: onnx.ModelProto) -> int:
    """A BatchNormalization that no layer could absorb becomes ``x * scale + shift``; returns how many."""
    graph, count = Graph(proto), 0
    ranks = _ranks(proto)
    for node in graph.nodes("BatchNormalization"):
        weight, bias, mean, variance = (graph.constant(name) for name in node.input[1:5])
        rank = ranks.get(node.input[0])
        if weight is None or bias is None or mean is None or variance is None or rank is None:
            continue
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        scale = weight / np.sqrt(variance + np.float32(epsilon))
        shape = (-1, *[1] * (rank - 2))
        factor = graph.add_constant(f"{node.output[0]}_scale", scale.astype(np.float32).reshape(shape))
        shift = graph.add_constant(
            f"{node.output[0]}_shift", (bias - mean * scale).astype(np.float32).reshape(shape)
        )
        scaled = f"{node.output[0]}_scaled"
        position = list(proto.graph.node).index(node)
        added = [
            helper.make_node("Mul", [node.input[0], factor], [scaled], name=f"{node.name}/Mul"),
            helper.make_node("Add", [scaled, shift], [node.output[0]], name=f"{node.name}/Add"),
        ]
        proto.graph.node.remove(node)
        for offset, replacement in enumerate(added):
            proto.graph.node.insert(position + offset, replacement)
        graph.refresh()
        count += 1
    drop_unused(proto)
    return count


def _ranks(proto: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    return {v.name: len(v.type.tensor_type.shape.dim) for v in values if v.type.tensor_type.HasField("shape")}


def _rename(proto: onnx.ModelProto, rename: Callable[[str], str]) -> None:
    for node in proto.graph.node:
        node.input[:] = [rename(name) for name in node.input]
        node.output[:] = [rename(name) for name in node.output]
    for tensor in proto.graph.initializer:
        tensor.name = rename(tensor.name)
