"""An ONNX file without the contents of its large weights: what describes the network is a few hundred kilobytes.

A protobuf parser would hold the whole file twice. Field numbers: ``onnx/onnx.proto``.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekd.profiles.onnx_file import fields_inside, message_fields

_GRAPH, _INITIALIZER, _NAME, _RAW = 7, 5, 8, 9
_KEPT = frozenset({1, 2, 8, 13, 14})  # dims, type, name, external data and whether it is external
_LARGE = 1 << 16  # bytes


def read_light(path: Path) -> tuple[bytes, dict[str, int]]:
    """The message without these contents, and where in the file each of them starts, by the weight's name.

    The file was checked by :func:`edgekd.profiles.onnx_file.read_summary`.
    """
    places: dict[str, int] = {}
    with path.open("rb") as stream:  # noqa: SIM117
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
            parts = []
            for number, value in message_fields(view):
                if number == _GRAPH and isinstance(value, tuple):
                    parts.append(_message(number, b"".join(_graph(view, value, places))))
                else:
                    parts.append(_same(view, number, value))
            return b"".join(parts), places


def _graph(view: memoryview, place: tuple[int, int], places: dict[str, int]) -> Iterator[bytes]:
    for number, value in fields_inside(view, place):
        large = number == _INITIALIZER and isinstance(value, tuple) and value[1] - value[0] > _LARGE
        yield _message(number, _tensor(view, value, places)) if large else _same(view, number, value)


def _tensor(view: memoryview, place: tuple[int, int], places: dict[str, int]) -> bytes:
    """As it is when its contents are not in one piece."""
    found = list(fields_inside(view, place))
    raw = next((value for number, value in found if number == _RAW), None)
    if raw is None:
        return bytes(view[place[0] : place[1]])
    name = next((bytes(view[value[0] : value[1]]).decode() for number, value in found if number == _NAME), "")
    places[name] = raw[0]
    return b"".join(_same(view, number, value) for number, value in found if number in _KEPT)


def _same(view: memoryview, number: int, value: Any) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _message(number, bytes(view[value[0] : value[1]]))


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
