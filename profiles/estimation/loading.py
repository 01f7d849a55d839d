"""An ONNX file to a graph of known shapes, without its external data.

Shapes go node by node, so that constants are followed on the way and operators outside the ONNX standard
need no more than a rule each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from edgekd.errors import MissingDependencyError, ModelFileError, fault
from edgekd.profiles.estimation.graph import Graph, Node
from edgekd.profiles.estimation.light import read_light
from edgekd.profiles.estimation.shapes import Inference
from edgekd.profiles.estimation.stored import stored_weight
from edgekd.profiles.inputs import Shape, random_inputs, stated_limits
from edgekd.profiles.onnx_file import read_summary

_NAMES = {1: "float", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "double"}


@dataclass(frozen=True)
class _Entry:
    """A graph's input, as a runtime's session describes it."""

    name: str
    type: str
    shape: Sequence[int | str]


def load_graph(path: Path, *, batch: int = 1, shape: Shape = None) -> Graph:
    """Args: see :func:`edgekd.profiles.estimation.workload.read_workload`, which also says what it raises."""
    onnx = onnx_package()
    read_summary(path)
    spot = str(path)
    try:
        light, places = read_light(path)
        model = onnx.load_model_from_string(light)
    except Exception as error:  # protobuf's own classes differ between its implementations
        fix = "copy or export the file again"
        raise ModelFileError(fault(spot, "corrupt, or not an ONNX file", got=str(error), fix=fix)) from None
    if model.functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    proto = model.graph
    opsets = {entry.domain or "": entry.version for entry in model.opset_import}
    inference = Inference(spot, opsets, model.ir_version)
    initialised = {tensor.name for tensor in proto.initializer}
    for tensor in proto.initializer:
        inference.add_weight(tensor.name, stored_weight(tensor, path, places.get(tensor.name)), tensor)
    entries = [_entry(value) for value in proto.input if value.name not in initialised]
    limits = stated_limits({entry.key: entry.value for entry in model.metadata_props})
    for name, array in random_inputs(entries, batch=batch, shape=shape, text=limits).items():
        inference.add_input(name, array.shape, onnx.helper.np_dtype_to_tensor_dtype(array.dtype))
    nodes = inference.run(proto.node)
    return Graph(
        nodes=_live(nodes, {value.name for value in proto.output}),
        inputs={entry.name: inference.shapes[entry.name] for entry in entries},
        outputs={value.name for value in proto.output},
        shapes=inference.shapes,
        types=inference.types,
        weights=inference.weights,
        values=inference.values,
        dynamic=inference.dynamic,
        opset=opsets.get("", 0),
    )


def onnx_package() -> ModuleType:
    """Raises MissingDependencyError: onnx is no part of the core installation."""
    try:
        import onnx
        import onnx.shape_inference
    except ImportError as error:
        fix = "run: pip install onnx"
        raise MissingDependencyError(
            fault("onnx", "needed to read a graph", got=str(error), fix=fix)
        ) from None
    return onnx


def _entry(value: Any) -> _Entry:
    kind = value.type.tensor_type
    shape = [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else dim.dim_param or "?"
        for dim in kind.shape.dim
    ]
    name = _NAMES.get(kind.elem_type, f"type {kind.elem_type}")
    return _Entry(value.name, f"tensor({name})", shape)


def _live(nodes: list[Node], outputs: set[str]) -> list[Node]:
    """Without what nobody reads."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            kept.append(node)
            wanted.update(node.inputs)
    return kept[::-1]
