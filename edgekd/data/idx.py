"""The IDX format of MNIST and its kin: a header of big-endian numbers, then the values.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database", section "File formats": two zero bytes, the
type (0x08 is uint8), the number of dimensions, then one 32-bit size each.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from edgekd.errors import DataError, fault

_UINT8 = 0x08


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The uint8 array in ``path`` (``.gz``), with ``dimensions`` axes.

    Raises:
        DataError: truncated, corrupt, or another kind of file.
    """
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            fault(str(path), "not a complete gzip file", got=getattr(error, "strerror", None) or str(error))
        ) from None
    return parse_idx(data, dimensions, str(path))


def parse_idx(data: bytes, dimensions: int, where: str) -> np.ndarray:
    """Uncompressed IDX ``data`` as a read-only uint8 array.

    Raises:
        DataError: another type, another number of axes, or bytes missing or left over.
    """
    start = 4 + 4 * dimensions
    if len(data) < start or data[:4] != bytes((0, 0, _UINT8, dimensions)):
        allowed = f"uint8 with {dimensions} dimensions"
        raise DataError(fault(where, "not the expected IDX header", got=data[:4].hex(), allowed=allowed))
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise DataError(
            fault(
                where,
                f"IDX header says {shape}",
                got=f"{len(data) - start} bytes",
                allowed=str(math.prod(shape)),
            )
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
