"""A stored weight: its shape and width, and a few of its rows on demand, without reading the rest."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.profiles.estimation.graph import Weight

# ONNX TensorProto.DataType: bytes of an element, NumPy type where there is one.
_TYPES: dict[int, tuple[float, Any]] = {
    1: (4, np.float32), 2: (1, np.uint8), 3: (1, np.int8), 4: (2, np.uint16), 5: (2, np.int16),
    6: (4, np.int32), 7: (8, np.int64), 9: (1, np.bool_), 10: (2, np.float16), 11: (8, np.float64),
    12: (4, np.uint32), 13: (8, np.uint64), 16: (2, None), 17: (1, None), 18: (1, None), 19: (1, None),
    20: (1, None), 21: (0.5, None), 22: (0.5, None),
}  # fmt: skip
_ROWS = 8  # of a weight that are looked at


def element_bytes(kind: int) -> float:
    return _TYPES.get(kind, (4, None))[0]


def stored_weight(tensor: Any, path: Path, place: int | None) -> Weight:
    """Of a ``TensorProto`` in the file ``path``, where its contents start at ``place`` if they were left there."""
    shape = tuple(int(size) for size in tensor.dims)
    width, dtype = _TYPES.get(tensor.data_type, (4, None))
    if dtype is None or len(shape) < 2:
        return Weight(shape, width)
    return Weight(shape, width, sample=lambda: _rows(tensor, shape, np.dtype(dtype), path, place))


def _rows(
    tensor: Any, shape: tuple[int, ...], dtype: np.dtype[Any], path: Path, place: int | None
) -> np.ndarray | None:
    """The first rows; None where the bytes cannot be had."""
    rows = min(_ROWS, shape[0])
    count = rows * math.prod(shape[1:])
    if tensor.data_location == 1:  # EXTERNAL
        data = _external(tensor, count * dtype.itemsize, path.parent)
    elif place is not None:
        with path.open("rb") as stream:
            stream.seek(place)
            data = stream.read(count * dtype.itemsize)
    elif tensor.raw_data:
        data = tensor.raw_data[: count * dtype.itemsize]
    elif tensor.float_data:
        data = np.array(tensor.float_data[:count], dtype).tobytes()
    else:
        data = np.array(tensor.int32_data[:count], dtype).tobytes()
    if len(data) != count * dtype.itemsize:
        return None
    return np.frombuffer(data, dtype).reshape(rows, *shape[1:])


def _external(tensor: Any, size: int, folder: Path) -> bytes:
    """Bytes of a file beside the model; nothing from a path that leads elsewhere."""
    entry = {pair.key: pair.value for pair in tensor.external_data}
    try:
        place = (folder / entry["location"]).resolve()
        if not place.is_relative_to(folder.resolve()):
            return b""
        with place.open("rb") as stream:
            stream.seek(int(entry.get("offset", 0)))
            return stream.read(size)
    except (OSError, KeyError, ValueError):
        return b""
