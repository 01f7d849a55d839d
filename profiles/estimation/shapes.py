"""Shapes and constants of a graph, node by node.

What no input changes is a weight, computed when the file is loaded: such nodes are dropped. The small ones among
them (sizes, axes, scalars) are evaluated, for shapes hang on them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from edgekd.errors import ModelFileError, fault
from edgekd.profiles.estimation.contrib import CONTRIB, contrib_shapes
from edgekd.profiles.estimation.graph import Node, Weight
from edgekd.profiles.estimation.stored import element_bytes

DETECTIONS = 100  # stands for a dimension that depends on data, such as the boxes that a filter leaves
_SMALL = 4096  # elements; no shape is computed from more
# What onnx's reference implementation raises on operators, types and numbers that it does not know.
_CANNOT_EVALUATE = (
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError
)  # fmt: skip
_STANDARD = ("", "ai.onnx")
# Of these onnx knows no shape in every opset, or not of all outputs: it is the first input's.
_AS_FIRST = ("Dropout", "GroupNormalization", "MeanVarianceNormalization")
_UNREPEATABLE = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial")


class Inference:
    """Attributes: see :class:`~edgekd.profiles.estimation.graph.Graph`."""

    def __init__(self, spot: str, opsets: dict[str, int], ir_version: int) -> None:
        self._spot, self._opsets, self._ir_version = spot, opsets, ir_version
        self._opset = opsets.get("", opsets.get("ai.onnx", 0))
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.types: dict[str, int] = {}
        self.weights: dict[str, Weight] = {}
        self.values: dict[str, np.ndarray] = {}
        self.dynamic: set[str] = set()
        self._kinds: dict[str, Any] = {}  # TypeProto of every value

    def add_input(self, name: str, shape: tuple[int, ...], kind: int) -> None:
        self._remember(name, shape, kind)
        self.shapes[name], self.types[name] = shape, kind

    def add_weight(self, name: str, weight: Weight, tensor: Any) -> None:
        self._remember(name, weight.shape, tensor.data_type)
        self.weights[name] = weight
        if math.prod(weight.shape) <= _SMALL and tensor.data_location != 1:
            from onnx import numpy_helper

            self.values[name] = numpy_helper.to_array(tensor)

    def run(self, protos: Iterable[Any]) -> list[Node]:
        """The nodes that run at every inference; If is replaced by the branch that its constant chooses."""
        nodes = []
        for proto in protos:
            name = proto.name or (proto.output[0] if proto.output else proto.op_type)
            if proto.op_type == "If" and proto.input[0] in self.values:
                nodes += self._branch(proto)
                continue
            if proto.op_type == "Constant":
                self._constant(proto)
                continue
            constant = all(not entry or entry in self.weights for entry in proto.input)
            constant = constant and proto.op_type not in _UNREPEATABLE and not _has_graph(proto)
            shapes = self._known_shape(proto)
            if shapes is None:
                shapes = self._infer(proto, name)
            if constant or proto.op_type in ("Shape", "Size"):
                self._fold(proto, shapes)
                continue
            for output, (shape, kind) in shapes.items():
                self._remember(output, shape, kind)
                self.shapes[output], self.types[output] = shape, kind
            if any(entry in self.dynamic for entry in proto.input):
                self.dynamic.update(proto.output)
            nodes.append(Node(name, proto.op_type, list(proto.input), list(proto.output), _attributes(proto)))
        return nodes

    def _infer(self, proto: Any, name: str) -> dict[str, tuple[tuple[int, ...], int]]:
        spot = f"{self._spot}: node {name!r}"
        if proto.domain not in _STANDARD:
            if (proto.domain, proto.op_type) not in CONTRIB:
                what = "an operator whose cost edgekd does not know"
                fix = "export it from standard ONNX operators"
                raise ModelFileError(fault(spot, what, got=f"{proto.domain}.{proto.op_type}", fix=fix))
            dims = {entry: tuple(_dims(self._kinds[entry])) for entry in proto.input if entry in self._kinds}
            types = {entry: self._kinds[entry].tensor_type.elem_type for entry in dims}
            return contrib_shapes(proto, _attributes(proto), dims, types)
        import onnx

        try:
            schema = onnx.defs.get_schema(proto.op_type, self._opset, "")
        except Exception:  # onnx's own SchemaError is no public name in every version
            what = f"no operator of ONNX opset {self._opset}"
            raise ModelFileError(
                fault(spot, what, got=proto.op_type, fix="export it with another opset")
            ) from None
        needed = (
            self._kinds if _has_graph(proto) else {k: self._kinds[k] for k in proto.input if k in self._kinds}
        )
        known = {entry: self.values[entry] for entry in proto.input if entry in self.values}
        data = {entry: onnx.numpy_helper.from_array(np.asarray(value)) for entry, value in known.items()}
        try:
            found = onnx.shape_inference.infer_node_outputs(
                schema, proto, needed, data, opset_imports=self._imports(), ir_version=self._ir_version
            )
        except KeyError as error:
            raise ModelFileError(fault(spot, "reads a value that nobody writes", got=error.args[0])) from None
        except Exception as error:  # InferenceError; its text has several lines
            what = f"{proto.op_type} does not fit its inputs"
            raise ModelFileError(fault(spot, what, got=_brief(str(error)), fix="check --shape")) from None
        return {
            output: self._complete(proto, output, found.get(output), spot)
            for output in proto.output
            if output
        }

    def _complete(self, proto: Any, output: str, kind: Any, spot: str) -> tuple[tuple[int, ...], int]:
        tensor = kind.tensor_type if kind is not None else None
        if (tensor is None or not tensor.HasField("shape")) and proto.op_type in _AS_FIRST:
            tensor = (kind := self._kinds[proto.input[0]]).tensor_type
        if tensor is None or not tensor.HasField("shape"):
            what = f"the shape of what {proto.op_type} writes is not known"
            raise ModelFileError(fault(spot, what, fix="export the network without it"))
        dims = _dims(kind)
        if not all(size >= 0 for size in dims):
            self.dynamic.add(output)
            dims = [size if size >= 0 else DETECTIONS for size in dims]
        return tuple(dims), tensor.elem_type

    def _known_shape(self, proto: Any) -> dict[str, tuple[tuple[int, ...], int]] | None:
        """Q and DQ, by the hundred in an int8 file: the shape of what they read."""
        if proto.op_type not in ("QuantizeLinear", "DequantizeLinear") or proto.input[0] not in self._kinds:
            return None
        shape = tuple(_dims(self._kinds[proto.input[0]]))
        if proto.op_type == "DequantizeLinear":
            kind = self._kinds[proto.input[1]].tensor_type.elem_type
        else:
            point = proto.input[2] if len(proto.input) > 2 else ""
            kind = self._kinds[point].tensor_type.elem_type if point else 2
        return {proto.output[0]: (shape, kind)}

    def _fold(self, proto: Any, shapes: dict[str, tuple[tuple[int, ...], int]]) -> None:
        """What no input changes: evaluated when it is small, else only remembered as a weight."""
        for output, (shape, kind) in shapes.items():
            self._remember(output, shape, kind)
            self.weights[output] = _derived(proto, shape, kind, self.weights)
        small = all(math.prod(shape) <= _SMALL for shape, _ in shapes.values())
        if proto.op_type in ("Shape", "Size") and small:
            dims = np.array(_dims(self._kinds[proto.input[0]]), np.int64)
            start, end = (
                _attributes(proto).get(key, default) for key, default in (("start", 0), ("end", None))
            )
            found = dims[start:end] if proto.op_type == "Shape" else np.array(dims.prod(), np.int64)
            self.values[proto.output[0]] = found
        elif small and all(not entry or entry in self.values for entry in proto.input):
            from onnx.reference import ReferenceEvaluator

            feeds = {entry: self.values[entry] for entry in proto.input if entry}
            try:
                results = ReferenceEvaluator(proto, opsets={"": self._opset}).run(None, feeds)
            except _CANNOT_EVALUATE:
                return  # its value stays unknown; its shape is known
            self.values.update(zip(proto.output, (np.asarray(result) for result in results), strict=False))

    def _constant(self, proto: Any) -> None:
        from onnx import numpy_helper

        attributes = _attributes(proto)
        value = next(iter(attributes.values()))
        array = numpy_helper.to_array(value) if hasattr(value, "dims") else np.asarray(value)
        if array.dtype == np.float64 and not hasattr(value, "dims"):
            array = array.astype(np.float32)
        tensor = numpy_helper.from_array(array)
        weight = Weight(array.shape, element_bytes(tensor.data_type))
        self.add_weight(proto.output[0], weight, tensor)

    def _branch(self, proto: Any) -> list[Node]:
        chosen = "then_branch" if bool(self.values[proto.input[0]].all()) else "else_branch"
        graph = next(entry.g for entry in proto.attribute if entry.name == chosen)
        for tensor in graph.initializer:
            self.add_weight(tensor.name, Weight(tuple(tensor.dims), element_bytes(tensor.data_type)), tensor)
        nodes = self.run(graph.node)
        for outer, inner in zip(proto.output, graph.output, strict=True):
            self._kinds[outer] = self._kinds[inner.name]
            if inner.name in self.shapes:
                self.shapes[outer], self.types[outer] = self.shapes[inner.name], self.types[inner.name]
                nodes.append(Node(outer, "Identity", [inner.name], [outer]))
            else:
                self.weights[outer] = self.weights[inner.name]
                if inner.name in self.values:
                    self.values[outer] = self.values[inner.name]
        return nodes

    def _remember(self, name: str, shape: tuple[int, ...], kind: int) -> None:
        from onnx import helper

        self._kinds[name] = helper.make_tensor_type_proto(kind, shape)

    def _imports(self) -> list[Any]:
        from onnx import helper

        return [helper.make_opsetid(domain, version) for domain, version in self._opsets.items()]


def _derived(proto: Any, shape: tuple[int, ...], kind: int, weights: dict[str, Weight]) -> Weight:
    """A weight that is computed from another keeps the width in which that is stored."""
    first = weights.get(proto.input[0]) if proto.input else None
    if first is not None and proto.op_type == "DequantizeLinear":
        return first
    if first is not None and proto.op_type == "Transpose" and len(shape) == 2:
        return Weight(shape, first.element_bytes, first.sample, not first.transposed)
    return Weight(shape, element_bytes(kind))


def _dims(kind: Any) -> list[int]:
    """-1 for an unknown one."""
    return [dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.tensor_type.shape.dim]


def _attributes(proto: Any) -> dict[str, Any]:
    from onnx import helper

    return {entry.name: helper.get_attribute_value(entry) for entry in proto.attribute}


def _has_graph(proto: Any) -> bool:
    return any(entry.HasField("g") for entry in proto.attribute)


def _brief(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 200 else text[:197] + "..."
