"""The weights of an ONNX file's convolutions and linear layers: where they stand and how they are read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from edgekd.errors import ModelFileError, fault
from edgekd.export.compact import layer_of
from edgekd.export.graph import Graph, attribute
from edgekd.export.nbits import OPERATOR, stored_integers

# Operator to the position of its weight; ConvTranspose reduces over another axis and is not here.
CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3, "FusedConv": 1}
LINEARS = {
    "Gemm": 1, "MatMul": 1, "FusedGemm": 1, "FusedMatMul": 1, "MatMulInteger": 1, "QLinearMatMul": 3,
    "QGemm": 3, "MatMulIntegerToFloat": 1, "DynamicQuantizeMatMul": 1, OPERATOR: 1,
}  # fmt: skip
WEIGHTED = CONVOLUTIONS | LINEARS
# In the name of a weight whose channels are those of several pixels (:mod:`edgekd.export.pixels`), before the
# count of products in each of its sums: the other numbers are zeros where a window does not reach.
PIXELS = "_pixels"
_PIXELS = re.compile(rf"{PIXELS}(\d+)")


@dataclass(frozen=True)
class StoredWeight:
    """One convolution's or linear layer's weight as it lies in the file.

    Attributes:
        node: the node that uses it.
        layer: the module it came from, as far as names tell (``layer1.0.conv1``).
        initializer: its name in the file.
        values: the stored numbers; integers where the file is quantized.
        reduction: the axis that the products are summed over.
        group: of a convolution, else 1.
    """

    node: str
    op_type: str
    layer: str
    initializer: str
    values: np.ndarray
    reduction: int
    group: int

    @property
    def pixels(self) -> bool:
        """Several pixels of the image are its channels."""
        return PIXELS in self.initializer

    @property
    def products(self) -> int:
        """Multiply-accumulates for each number that a layer writes; channels that were added for the kernel's
        sake, zero in every filter, are none."""
        counted = _PIXELS.search(self.initializer)
        if counted:
            return int(counted[1])
        if self.kind == "linear":
            return int(self.values.shape[self.reduction])
        read = np.moveaxis(self.values, 1, 0).reshape(self.values.shape[1], -1).any(axis=1)
        return int(read.sum()) * int(self.values[0, 0].size)

    @property
    def kind(self) -> Literal["conv", "linear"]:
        return "conv" if self.op_type in CONVOLUTIONS else "linear"


def load_onnx(path: Path) -> onnx.ModelProto:
    """The parsed file, external data included; nodes without a name are called by what they make.

    Raises:
        ModelFileError: missing, truncated, not ONNX; one line.
    """
    try:
        proto = onnx.load(str(path))
    except OSError as error:
        raise ModelFileError(fault(str(path), "cannot be read", got=error.strerror or str(error))) from None
    except (DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelFileError(
            fault(str(path), "is not an ONNX file, or is truncated", got=str(error).splitlines()[0][:120])
        ) from None
    if not proto.graph.node or not proto.graph.output:
        raise ModelFileError(fault(str(path), "is not an ONNX file: it holds no graph"))
    for node in proto.graph.node:
        node.name = node.name or node.output[0]
    return proto


def stored_weights(proto: onnx.ModelProto) -> Iterator[StoredWeight]:
    """Every constant weight of a convolution or linear node, in graph order.

    A product of two activations (attention) has no weight and does not appear.
    """
    graph = Graph(proto)
    for node in proto.graph.node:
        if node.op_type not in WEIGHTED:
            continue
        if node.op_type == OPERATOR:
            yield StoredWeight(
                node.name, OPERATOR, layer_of(node.name), node.input[1], stored_integers(graph, node), 1, 1
            )
            continue
        found = _trace(graph, node.input[WEIGHTED[node.op_type]])
        if found is None:
            continue
        name, values, order = found
        attributes = {a.name: a for a in node.attribute}
        if node.op_type in CONVOLUTIONS:
            axis = 1
        else:
            transposed = "transB" in attributes and attributes["transB"].i == 1
            axis = values.ndim - 1 if transposed else values.ndim - 2
        group = attributes["group"].i if "group" in attributes else 1
        layer = name.removesuffix("_int8").removesuffix("_quantized")
        layer = _PIXELS.sub("", layer)
        layer = layer.removesuffix(".weight") if layer.endswith(".weight") else layer_of(node.name)
        yield StoredWeight(node.name, node.op_type, layer, name, values, order[axis], group)


def _trace(graph: Graph, name: str) -> tuple[str, np.ndarray, list[int]] | None:
    """Follow DequantizeLinear, Transpose, Identity and Cast back to an initialiser.

    Returns its name, its values, and for each axis as the layer sees it the axis as stored.
    """
    value = graph.constant(name)
    if value is not None:
        return (name, value, list(range(value.ndim))) if value.ndim >= 2 else None
    node = graph.producer.get(name)
    if node is None or node.op_type not in ("DequantizeLinear", "QuantizeLinear", "Transpose", "Cast"):
        return None
    found = _trace(graph, node.input[0])
    if found is None or node.op_type != "Transpose":
        return found
    perm = attribute(node, "perm")
    order = found[2]
    return found[0], found[1], [order[k] for k in perm or reversed(range(len(order)))]
