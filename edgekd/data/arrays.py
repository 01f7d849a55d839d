"""Images in a NumPy array: ``.npz`` with images and labels, or ``.npy`` with images alone."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.data.labels import number_labels
from edgekd.data.source import UNLABELLED, Samples
from edgekd.errors import DataError, fault
from edgekd.recipe import DataRecipe

if TYPE_CHECKING:
    from PIL import Image

_KEYS = "images and labels, or x_train, y_train, x_test and y_test"
_SPLIT_KEYS = {"train": "train", "validation": "val", "test": "test"}


class ArraySource:
    """Decoded images in memory.

    Attributes:
        pixels: uint8 ``(n, height, width)`` gray or ``(n, height, width, 3)`` RGB.
    """

    def __init__(self, name: str, pixels: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> None:
        self.name = name
        self.pixels = pixels
        self.labels = np.asarray(labels, np.int64)
        self.classes = classes

    def __len__(self) -> int:
        return len(self.pixels)

    def sample_id(self, index: int) -> str:
        return str(index)

    def image(self, index: int) -> Image.Image:
        from PIL import Image

        return Image.fromarray(self.pixels[index])

    def digest(self, index: int) -> bytes:
        return hashlib.sha256(np.ascontiguousarray(self.pixels[index]).data).digest()


def open_arrays(path: Path, recipe: DataRecipe) -> Samples:
    """A ``.npz`` or ``.npy`` file.

    Raises:
        DataError: unreadable, a pickle inside, missing keys, not uint8 images, labels that do not fit.
    """
    arrays = _read(path)
    name = path.stem
    if not isinstance(arrays, Mapping):
        if recipe.labels:
            fix = "store images and labels in one .npz, or set data.labels: false"
            raise DataError(fault(str(path), "a .npy file holds no labels", fix=fix))
        pixels = check_pixels(arrays, str(path))
        source = ArraySource(name, pixels, np.full(len(pixels), UNLABELLED), ())
        return Samples(source, {"train": np.arange(len(pixels))}, provenance={"format": "npy"})
    x_keys = {split: f"x_{short}" for split, short in _SPLIT_KEYS.items() if f"x_{short}" in arrays}
    if "images" in arrays:
        parts = {"train": ("images", "labels")}
    elif "train" in x_keys:
        parts = {split: (key, f"y{key[1:]}") for split, key in x_keys.items()}
    else:
        raise DataError(fault(str(path), "no images", got=", ".join(arrays) or "nothing", allowed=_KEYS))
    images, labels, given, start = [], [], {}, 0
    for split, (x, y) in parts.items():
        pixels = check_pixels(arrays[x], f"{path}: {x}")
        images.append(pixels)
        if images[0].shape[1:] != pixels.shape[1:]:
            raise DataError(
                fault(
                    f"{path}: {x}",
                    "images of another shape",
                    got=pixels.shape[1:],
                    allowed=str(images[0].shape[1:]),
                )
            )
        if recipe.labels:
            if y not in arrays:
                fix = "add it, or set data.labels: false"
                raise DataError(fault(f"{path}: {y}", "the labels are missing", fix=fix))
            labels.append(_check_labels(arrays[y], len(pixels), f"{path}: {y}"))
        given[split] = np.arange(start, start + len(pixels))
        start += len(pixels)
    pixels = images[0] if len(images) == 1 else np.concatenate(images)
    if recipe.labels:
        numbers, classes = _number(labels, [y for _, y in parts.values()], arrays.get("classes"), path)
    else:
        numbers, classes = np.full(start, UNLABELLED), ()
    return Samples(ArraySource(name, pixels, numbers, classes), given, provenance={"format": "npz"})


def _read(path: Path) -> Any:
    """The arrays by key, or the one array of a ``.npy`` file (mapped, not read)."""
    try:
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        with np.load(path, allow_pickle=False) as stored:
            if isinstance(stored, np.ndarray):
                raise ValueError("a .npy array under another name")
            return {key: stored[key] for key in stored.files}
    except (
        OSError,
        ValueError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        KeyError,
        RuntimeError,  # zipfile: a method of compression that it does not know, or a password
    ) as error:
        if "pickle" in str(error):
            reason = "it holds Python objects (a pickle), which could run code"
        else:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(fault(str(path), "cannot be read as NumPy arrays", got=reason)) from None


def check_pixels(array: np.ndarray, where: str) -> np.ndarray:
    """``array`` as uint8 ``(n, height, width)`` or ``(n, height, width, 3)``.

    Raises:
        DataError: another type or shape.
    """
    shapes = "uint8 (n, height, width), (n, height, width, 1) or (n, height, width, 3)"
    fits = array.ndim == 3 or (array.ndim == 4 and array.shape[3] in (1, 3))
    if array.dtype != np.uint8 or not fits:
        raise DataError(fault(where, "not images", got=f"{array.dtype} {array.shape}", allowed=shapes))
    if 0 in array.shape:
        raise DataError(fault(where, "no images", got=f"{array.dtype} {array.shape}"))
    return array[..., 0] if array.ndim == 4 and array.shape[3] == 1 else array


def _check_labels(array: np.ndarray, count: int, where: str) -> np.ndarray:
    labels = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if labels.shape != (count,):
        raise DataError(
            fault(where, "labels do not fit the images", got=str(array.shape), allowed=f"({count},)")
        )
    if labels.dtype.kind not in "iuU":
        raise DataError(fault(where, "not labels", got=str(labels.dtype), allowed="whole numbers or text"))
    return labels


def _number(
    labels: list[np.ndarray], keys: list[str], names: np.ndarray | None, path: Path
) -> tuple[np.ndarray, tuple[str, ...]]:
    joined = np.concatenate(labels)
    if joined.dtype.kind == "U":
        return number_labels([str(value) for value in joined])
    if names is not None:
        classes = tuple(str(name) for name in names)
    else:
        # More classes than images can only be a mistake, and must not become a huge tuple.
        classes = tuple(map(str, range(min(int(joined.max()) + 1, len(joined)))))
    for key, part in zip(keys, labels, strict=True):
        wrong = np.flatnonzero((part < 0) | (part >= len(classes)))
        if len(wrong):
            spot, got = f"{path}: {key}[{wrong[0]}]", int(part[wrong[0]])
            raise DataError(fault(spot, "not a class", got=got, allowed=f"0 to {len(classes) - 1}"))
    return joined.astype(np.int64), classes
