"""Attention masks that the arithmetic likes.

A mask that adds -100 makes softmax answer e-44: not zero but a denormal number, and the product with the
values then takes a processor ten times as long (measured: 27 ms instead of 2.5 in a windowed transformer).
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from edgekd.export.graph import Graph

_MASKED = -60.0  # exp(-60) = 9e-27: below float32's resolution beside anything that is not masked
_ZERO = -1e4  # exp of it is exactly 0, and it is finite in float16 too


def deepen_masks(proto: onnx.ModelProto) -> int:
    """Constants that are added before a softmax: what is masked out, is masked to exactly zero.

    Only masks are touched: a constant that also holds zeros, and nothing between. Returns how many changed.
    """
    graph, count = Graph(proto), 0
    for softmax in graph.nodes("Softmax"):
        node = graph.producer.get(softmax.input[0])
        while node is not None and node.op_type in ("Add", "Reshape", "Cast"):
            data = None
            for name in node.input if node.op_type == "Add" else ():
                value = graph.constant(name)
                data = data or (name if value is None else None)
                if value is not None and value.dtype == np.float32:
                    count += _deepen(graph, name, value)
            name = node.input[0] if node.op_type != "Add" else data
            node = graph.producer.get(name) if name is not None else None
    return count


def _deepen(graph: Graph, name: str, value: np.ndarray) -> int:
    masked = (value <= _MASKED) & (value > _ZERO)
    if not masked.any() or value[~masked & (value > _ZERO)].any():
        return 0
    deeper = np.where(masked, np.float32(_ZERO), value)
    if name in graph.initializers:
        graph.initializers[name].CopyFrom(numpy_helper.from_array(deeper, name))
        return 1
    node = graph.producer[name]
    if node.op_type != "Constant":
        return 0
    attribute = next(a for a in node.attribute if a.name == "value")
    attribute.t.CopyFrom(numpy_helper.from_array(deeper, attribute.t.name))
    return 1
