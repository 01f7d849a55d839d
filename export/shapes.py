"""Shapes that are known are written down, so that no node computes them at each run.

An exporter writes ``x.reshape(batch, tokens, 3, heads, width)`` as half a dozen nodes that read the shape of
``x``, take it apart and put it together again. Where all sizes but one are known, or are those of the tensor
that is reshaped, a constant says the same.
"""

from __future__ import annotations

import numpy as np
import onnx

from edgekd.export.graph import Graph, drop_unused

Size = int | str | None  # known, dynamic (the same name, the same size), unknown
_LARGE = 1 << 12  # bytes; no shape is computed from more
# Sizes of the batch and of other dynamic dimensions to try; what differs between them depends on them.
_PROBES = ((2, 7), (3, 7), (2, 11))


def known_shapes(proto: onnx.ModelProto) -> dict[str, list[Size]]:
    """The shape of every value: inferred for several batch (and sequence) sizes, and compared.

    A symbolic inference loses the thread where a batch is split into windows and put together again.
    """
    light = _without_weights(proto)
    probes = [_inferred(light, *probe) for probe in _PROBES]
    names = {
        tuple(sizes): dim.dim_param
        for value in proto.graph.input
        for dim, *sizes in zip(
            value.type.tensor_type.shape.dim, *(probe[value.name] for probe in probes), strict=True
        )
        if dim.dim_param
    }
    shapes: dict[str, list[Size]] = {}
    for name, first in probes[0].items():
        others = [probe.get(name, []) for probe in probes[1:]]
        if any(len(other) != len(first) for other in others):
            continue
        shapes[name] = [_merged(sizes, names) for sizes in zip(first, *others, strict=True)]
    return shapes


def _merged(sizes: tuple[int, ...], names: dict[tuple[int, ...], str]) -> Size:
    if not all(sizes):
        return None
    return sizes[0] if len(set(sizes)) == 1 else names.get(sizes, str(sizes))


def _inferred(light: onnx.ModelProto, batch: int, other: int) -> dict[str, list[int]]:
    """Shapes with 0 for an unknown size."""
    for value in light.graph.input:
        for position, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param or dim.denotation == _DYNAMIC:
                dim.denotation = _DYNAMIC
                dim.dim_value = batch if position == 0 else other
    inferred = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    return {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
        if value.type.tensor_type.HasField("shape")
    }


_DYNAMIC = "dynamic"


def _without_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large initialisers are inputs, of which the shape alone is known: inference is then fast."""
    light = onnx.ModelProto()
    light.ir_version = proto.ir_version
    light.opset_import.extend(proto.opset_import)
    light.graph.name = proto.graph.name
    light.graph.node.extend(proto.graph.node)
    light.graph.input.extend(proto.graph.input)
    for value in proto.graph.output:
        light.graph.output.add(name=value.name).type.tensor_type.elem_type = value.type.tensor_type.elem_type
    for tensor in proto.graph.initializer:
        if len(tensor.raw_data) <= _LARGE:
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    return light


def fix_reshapes(proto: onnx.ModelProto) -> int:
    """Reshapes to a computed shape get a constant one where it says the same; returns how many.

    ``0`` keeps the size at that position, ``-1`` stands for the one that is not known.
    """
    shapes = known_shapes(proto)
    graph, count = Graph(proto), 0
    for node in graph.nodes("Reshape"):
        if graph.constant(node.input[1]) is not None or any(
            a.name == "allowzero" and a.i for a in node.attribute
        ):
            continue
        before, after = shapes.get(node.input[0], []), shapes.get(node.output[0])
        if after is None:
            continue
        target = [
            size
            if isinstance(size, int)
            else (0 if size is not None and k < len(before) and before[k] == size else -1)
            for k, size in enumerate(after)
        ]
        if target.count(-1) > 1:
            continue
        node.input[1] = graph.add_constant(f"{node.output[0]}_shape", np.array(target, np.int64))
        count += 1
    drop_unused(proto)
    return count
