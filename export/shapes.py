"""Shapes that are known are written down, so that no node computes them at each run.

An exporter writes ``x.reshape(batch, tokens, 3, heads, width)`` as half a dozen nodes that read the shape of
``x``, take it apart and put it together again. Where all sizes but one are known, or are those of the tensor
that is reshaped, a constant says the same.
"""

from __future__ import annotations

import numpy as np
import onnx

from edgekd.export.graph import Graph, drop_unused

Size = int | str | None  # known, known by name (batch), unknown


def known_shapes(proto: onnx.ModelProto) -> dict[str, list[Size]]:
    """The shape of every value as far as shape inference tells."""
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    shapes: dict[str, list[Size]] = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        if value.type.tensor_type.HasField("shape"):
            shapes[value.name] = [
                dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
                for dim in value.type.tensor_type.shape.dim
            ]
    return shapes


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
