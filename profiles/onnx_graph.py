"""Inputs and nodes of an ONNX file's graph, read without the onnx package and without loading it into a runtime."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekd.errors import ModelFileError, fault
from edgekd.profiles.onnx_file import fields_inside, message_fields, read_summary, text_of
from edgekd.profiles.runtimes.loaded import Declared

# onnx/onnx.proto, TensorProto.DataType, as ONNX Runtime spells them.
_TYPES = {1: "float", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "double"}
_SCOPES = "pkg.torch.onnx.name_scopes"  # torch.onnx, dynamo=True: "['', 'layer1', 'layer1.0', 'conv2d']"


@dataclass(frozen=True)
class OnnxNode:
    """One node.

    Attributes:
        scopes: modules around it, outermost first, where the exporter wrote them beside the node.
        constants: which of its inputs are initializers.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    scopes: tuple[str, ...] = ()
    constants: frozenset[str] = frozenset()


def read_inputs(path: Path) -> list[Declared]:
    """Inputs of the main graph that have no initial value, in their order.

    Raises:
        ModelFileError: as :func:`edgekd.profiles.onnx_file.read_summary`, or an input that is no tensor.
    """
    inputs: dict[str, Declared] = {}
    constants: set[str] = set()
    with _graph(path) as (view, fields):
        for number, place in fields:
            if number == 5:  # initializer
                constants.add(_initializer(view, place))
            elif number == 11:  # input
                name, kind, dims = _value_info(view, place)
                inputs[name] = Declared(name, f"tensor({_TYPES.get(kind, kind)})", dims)
    found = [entry for name, entry in inputs.items() if name not in constants]
    for entry in found:
        if entry.type == "tensor(0)":
            raise ModelFileError(fault(f"{path}: input {entry.name!r}", "is no tensor"))
    return found


def read_nodes(path: Path) -> list[OnnxNode]:
    """Nodes of the main graph, in their order, which is one of execution.

    Raises:
        ModelFileError: as :func:`edgekd.profiles.onnx_file.read_summary`.
    """
    nodes: list[OnnxNode] = []
    constants: set[str] = set()
    with _graph(path) as (view, fields):
        for number, place in fields:
            if number == 1:
                nodes.append(_node(view, place))
            elif number == 5:
                constants.add(_initializer(view, place))
    return [replace(node, constants=frozenset(constants.intersection(node.inputs))) for node in nodes]


@contextmanager
def _graph(path: Path) -> Iterator[tuple[memoryview, list[tuple[int, Any]]]]:
    """Fields of the main graph."""
    read_summary(path)  # says what is wrong with the file, in its own words
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        view = memoryview(data)
        try:
            graph = next(value for number, value in message_fields(view) if number == 7)
            yield view, list(fields_inside(view, graph))
        finally:
            view.release()


def _node(view: memoryview, place: Any) -> OnnxNode:
    texts: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: []}  # input, output, name, op_type
    scopes: tuple[str, ...] = ()
    for number, value in fields_inside(view, place):
        if number in texts:
            texts[number].append(text_of(view, value))
        elif number == 9:  # metadata_props
            entry = {key: text_of(view, text) for key, text in fields_inside(view, value)}
            if entry.get(1) == _SCOPES:
                scopes = tuple(re.findall(r"'([^']*)'", entry.get(2, "")))
    name, op = "".join(texts[3]), "".join(texts[4])
    return OnnxNode(name, op, tuple(texts[1]), tuple(texts[2]), scopes)


def _initializer(view: memoryview, place: Any) -> str:
    return next((text_of(view, name) for key, name in fields_inside(view, place) if key == 8), "")


def _value_info(view: memoryview, place: Any) -> tuple[str, int, list[int | str]]:
    """Name, element type (0 for what is no tensor) and dimensions."""
    name, kind = "", 0
    dims: list[int | str] = []
    for number, value in fields_inside(view, place):
        if number == 1:
            name = text_of(view, value)
        elif number == 2:  # type
            for key, tensor in fields_inside(view, value):
                if key != 1:  # tensor_type
                    continue
                for part, content in fields_inside(view, tensor):
                    if part == 1:
                        kind = int(content)
                    elif part == 2:  # shape
                        dims = [_dim(view, dim) for tag, dim in fields_inside(view, content) if tag == 1]
    return name, kind, dims


def _dim(view: memoryview, place: Any) -> int | str:
    for number, value in fields_inside(view, place):
        if number == 1:
            return int(value)
        if number == 2:
            return text_of(view, value)
    return "?"
