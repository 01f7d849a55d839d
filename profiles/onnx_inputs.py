"""The inputs that an ONNX file declares, read without the onnx package and without loading it into a runtime."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

from edgekd.errors import ModelFileError, fault
from edgekd.profiles.onnx_file import fields_inside, message_fields, read_summary, text_of
from edgekd.profiles.runtimes.loaded import Declared

# onnx/onnx.proto, TensorProto.DataType, as ONNX Runtime spells them.
_TYPES = {1: "float", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "double"}


def read_inputs(path: Path) -> list[Declared]:
    """Inputs of the main graph that have no initial value, in their order.

    Raises:
        ModelFileError: as :func:`edgekd.profiles.onnx_file.read_summary`, or an input that is no tensor.
    """
    read_summary(path)  # says what is wrong with the file, in its own words
    inputs: dict[str, Any] = {}
    constants: set[str] = set()
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        view = memoryview(data)
        try:
            for number, graph in message_fields(view):
                if number != 7:
                    continue
                for inner, place in fields_inside(view, graph):
                    if inner == 5:  # initializer
                        constants.update(
                            text_of(view, name) for key, name in fields_inside(view, place) if key == 8
                        )
                    elif inner == 11:  # input
                        name, kind, dims = _value_info(view, place)
                        inputs[name] = Declared(name, f"tensor({_TYPES.get(kind, kind)})", dims)
        finally:
            view.release()
    found = [entry for name, entry in inputs.items() if name not in constants]
    for entry in found:
        if entry.type == "tensor(0)":
            raise ModelFileError(fault(f"{path}: input {entry.name!r}", "is no tensor"))
    return found


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
