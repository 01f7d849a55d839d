"""Images in files: only the paths are kept in memory."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekd.data.source import SampleError
from edgekd.errors import MissingDependencyError, fault

if TYPE_CHECKING:
    from PIL import Image

_DEEP_MODES = ("I", "F")  # Pillow clips these to white when it converts them to 8 bits
_ORIENTATION = 274  # EXIF's tag; by its value, the Image.Transpose that sets the picture upright
_UPRIGHT = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270",
            7: "TRANSVERSE", 8: "ROTATE_90"}  # fmt: skip


def printable(path: str) -> str:
    """``path`` as text that can be written as UTF-8, whatever bytes the file name holds."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def decode(data: bytes | Path, where: str) -> Image.Image:
    """A completely decoded image of 8 bits a channel, upright: turned as its EXIF orientation says.

    Raises:
        SampleError: not an image, truncated, or deeper than 8 bits.
        MissingDependencyError: Pillow is not installed.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise MissingDependencyError(
            fault("images", "Pillow is not installed", fix="pip install Pillow")
        ) from None
    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
            image.load()
    except FileNotFoundError:
        raise SampleError(fault(where, "no such image")) from None
    except UnidentifiedImageError:
        raise SampleError(fault(where, "not an image that Pillow reads")) from None
    except Exception as error:  # arbitrary bytes raise arbitrary things inside the decoders
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise SampleError(fault(where, "the image does not decode", got=reason)) from None
    if image.mode.split(";")[0] in _DEEP_MODES:
        raise SampleError(
            fault(where, "deeper than 8 bits a channel", got=image.mode, fix="convert it to 8 bits")
        )
    return _upright(image)


def _upright(image: Image.Image) -> Image.Image:
    """Cameras and telephones store what their sensor saw and note how they were held."""
    from PIL import Image

    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a picture is no worse for a damaged note beside it
        turn = None
    return image.transpose(Image.Transpose[turn]) if turn else image


class PathSource:
    """Files below one folder.

    Attributes:
        root: the folder that ``paths`` are relative to.
        paths: with ``/``; absolute where a table says so.
    """

    def __init__(
        self, name: str, root: Path, paths: Sequence[str], labels: np.ndarray, classes: tuple[str, ...]
    ) -> None:
        self.name = name
        self.root = root
        self.paths = paths
        self.labels = np.asarray(labels, np.int64)
        self.classes = classes

    def __len__(self) -> int:
        return len(self.paths)

    def file(self, index: int) -> Path:
        return self.root / self.paths[index]

    def sample_id(self, index: int) -> str:
        return printable(self.paths[index])

    def image(self, index: int) -> Image.Image:
        return decode(self.file(index), printable(str(self.file(index))))

    def digest(self, index: int) -> bytes:
        path = self.file(index)
        where = printable(str(path))
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise SampleError(fault(where, "no such image")) from None
        except OSError as error:
            raise SampleError(fault(where, "cannot be read", got=error.strerror or str(error))) from None
        if not data:
            raise SampleError(fault(where, "the file is empty"))
        decode(data, where)
        return hashlib.sha256(data).digest()
