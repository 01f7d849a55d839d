"""What an ONNX file says of itself, read without the onnx package: a Pi needs numpy and onnxruntime alone.

The file is a protobuf message; only lengths are walked, so that weights are never copied. Field numbers:
``onnx/onnx.proto`` (ModelProto, GraphProto, NodeProto, TensorProto, OperatorSetIdProto).
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgekd.errors import ModelFileError, fault

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_INTEGER_OPERATORS = frozenset(
    {"QuantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeMatMul"}
    | {"QLinearConv", "QLinearMatMul", "QLinearAdd", "QGemm"}
    | {"ConvInteger", "MatMulInteger", "MatMulIntegerToFloat"}
)
_FLOAT, _FLOAT16, _BFLOAT16, _UINT4, _INT4 = 1, 10, 16, 21, 22  # TensorProto.DataType
# Integers as weights alone, in blocks of as many bits as its attribute ``bits`` says; 4 where it is left out.
_BLOCKS = "MatMulNBits"
_FIX = "copy or export the file again"


class _NotAMessage(ValueError):
    """The bytes end inside a field, or a field is of no known kind."""


@dataclass(frozen=True)
class OnnxSummary:
    """Attributes:
    opset: version of the default domain; 0 when the file names none.
    operators: nodes of the main graph by operator type.
    precision: ``int8`` with quantized operators, else by the type of most weights: ``fp16`` or ``fp32``.
    size_bytes: of the file and of its external data together.
    external: external data files, as named in the file, relative to its folder.
    metadata: what its writer put there, by key.
    """

    opset: int
    operators: Counter[str]
    precision: str
    size_bytes: int
    external: tuple[str, ...]
    metadata: dict[str, str] = field(default_factory=dict)


def read_summary(path: Path) -> OnnxSummary:
    """Read an ONNX file's summary.

    Raises:
        ModelFileError: missing, truncated or no ONNX file, or its external data is missing; one line.
    """
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            if size == 0:
                raise ModelFileError(fault(str(path), "the ONNX file is empty", fix=_FIX))
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
                summary = _summarise(view, size)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelFileError(fault(str(path), "the ONNX file cannot be read", got=reason)) from None
    except _NotAMessage:
        raise ModelFileError(
            fault(str(path), "truncated, or not an ONNX file", got=f"{size} bytes", fix=_FIX)
        ) from None
    return _with_external(path, summary)


def _summarise(view: memoryview, size: int) -> OnnxSummary:
    opset = 0
    operators: Counter[str] = Counter()
    external: set[str] = set()
    weights: Counter[int] = Counter()
    bits: Counter[int] = Counter()
    metadata: dict[str, str] = {}
    graphs = 0
    for number, value in message_fields(view):
        if number == 8:  # opset_import
            parts = dict(fields_inside(view, value))
            domain = text_of(view, parts[1]) if 1 in parts else ""
            if domain in ("", "ai.onnx"):
                opset = _number(parts.get(2, 0))
        elif number == 14:  # metadata_props
            parts = dict(fields_inside(view, value))
            if 1 in parts:
                metadata[text_of(view, parts[1])] = text_of(view, parts[2]) if 2 in parts else ""
        elif number == 7:  # graph
            graphs += 1
            for inner, place in fields_inside(view, value):
                if inner == 1:  # node
                    found = [text_of(view, text) for key, text in fields_inside(view, place) if key == 4]
                    operators.update(found)
                    if _BLOCKS in found:
                        bits[_bits(view, place)] += 1
                elif inner == 5:  # initializer
                    _count_weights(view, place, weights, external)
    if graphs != 1:
        raise _NotAMessage
    precision = _precision(operators, weights, bits)
    return OnnxSummary(opset, operators, precision, size, tuple(sorted(external)), metadata)


def _precision(operators: Counter[str], weights: Counter[int], bits: Counter[int]) -> str:
    if _INTEGER_OPERATORS & set(operators):
        return "int8"
    if bits:
        return f"int{bits.most_common(1)[0][0]} weights"
    if "DequantizeLinear" in operators:
        return "int4 weights" if weights[_UINT4] + weights[_INT4] else "int8 weights"
    return "fp16" if weights[_FLOAT16] + weights[_BFLOAT16] > weights[_FLOAT] else "fp32"


def _bits(view: memoryview, node: Any) -> int:
    """Of a node in blocks. AttributeProto: name 1, integer 3."""
    for number, place in fields_inside(view, node):
        if number == 5:
            entry = dict(fields_inside(view, place))
            if 1 in entry and text_of(view, entry[1]) == "bits":
                return _number(entry.get(3, 0))
    return 4


def _count_weights(view: memoryview, place: Any, weights: Counter[int], external: set[str]) -> None:
    elements, kind = 1, 0
    for number, value in fields_inside(view, place):
        if number == 1:  # dims, packed or not
            for dim in [value] if isinstance(value, int) else _varints(view, *_place(value)):
                elements *= dim
        elif number == 2:
            kind = _number(value)
        elif number == 13:  # external_data: key, value
            entry = {key: text_of(view, text) for key, text in fields_inside(view, value)}
            if entry.get(1) == "location":
                external.add(entry.get(2, ""))
    weights[kind] += elements


def _with_external(path: Path, summary: OnnxSummary) -> OnnxSummary:
    size = summary.size_bytes
    for name in summary.external:
        try:
            size += (path.parent / name).stat().st_size
        except OSError:
            fix = f"put it beside the file in {path.parent}"
            raise ModelFileError(
                fault(str(path), "its external data is missing", got=name, fix=fix)
            ) from None
    return replace(summary, size_bytes=size)


def message_fields(view: memoryview) -> Iterator[tuple[int, Any]]:
    """:func:`_fields` of the whole file."""
    return _fields(view, 0, len(view))


def _fields(view: memoryview, start: int, end: int) -> Iterator[tuple[int, Any]]:
    """Field number and value: an int, or the ``(start, end)`` of a length-delimited field's bytes."""
    while start < end:
        tag, start = _varint(view, start, end)
        number, kind = tag >> 3, tag & 7
        value: Any
        if kind == _VARINT:
            value, start = _varint(view, start, end)
        elif kind == _BYTES:
            length, start = _varint(view, start, end)
            value = (start, start + length)
            start += length
        elif kind in (_FIXED64, _FIXED32):
            value = (start, start + (8 if kind == _FIXED64 else 4))
            start = value[1]
        else:
            raise _NotAMessage
        if number == 0 or start > end:
            raise _NotAMessage
        yield number, value


def fields_inside(view: memoryview, value: Any) -> Iterator[tuple[int, Any]]:
    """:func:`_fields` of the message that a field holds."""
    return _fields(view, *_place(value))


def _place(value: Any) -> tuple[int, int]:
    if not isinstance(value, tuple):
        raise _NotAMessage
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int):
        raise _NotAMessage
    return value


def _varints(view: memoryview, start: int, end: int) -> Iterator[int]:
    while start < end:
        value, start = _varint(view, start, end)
        yield value


def _varint(view: memoryview, start: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if start >= end:
            raise _NotAMessage
        byte = view[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
    raise _NotAMessage


def text_of(view: memoryview, value: Any) -> str:
    """What a text field holds."""
    start, end = _place(value)
    return bytes(view[start:end]).decode("utf-8", "replace")
