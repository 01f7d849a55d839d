"""Photographs for calibration and comparison: a folder of the user's, or the two that scikit-learn ships."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from edgekd.errors import DataError, fault
from edgekd.preprocess import Preprocess

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
_SPLIT_FROM = 8
"""So many photographs are shared out between calibration and comparison; fewer serve both, in other crops."""


@dataclass(frozen=True)
class Photos:
    """Attributes:
    source: what they are, for the conditions of a result.
    """

    calibration: list[Image.Image]
    comparison: list[Image.Image]
    source: str


def open_photos(folder: Path | None) -> Photos:
    """All images below ``folder``, or scikit-learn's two sample photographs.

    Raises:
        DataError: there is no image below ``folder``, or one cannot be read.
    """
    if folder is None:
        from sklearn.datasets import load_sample_images

        images = [Image.fromarray(pixels) for pixels in load_sample_images().images]
        return Photos(images, images, "scikit-learn's 2 sample photographs, random crops")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(fault(str(folder), "no image below this folder", allowed=", ".join(sorted(SUFFIXES))))
    images = [_read(path) for path in paths]
    source = f"{len(images)} photographs given by --photos"
    if len(images) < _SPLIT_FROM:
        return Photos(images, images, f"{source}, random crops")
    return Photos(images[::2], images[1::2], f"{source}, half for calibration")


def crops(photos: list[Image.Image], count: int, preprocess: Preprocess, seed: int) -> np.ndarray:
    """``count`` preprocessed samples ``(count, channels, height, width)``: every photograph once as it is, then
    random crops (a quarter of the area and more, mirrored half the time) of one after the other."""
    random = np.random.default_rng(seed)
    made = []
    for index in range(count):
        photo = photos[index % len(photos)]
        made.append(preprocess(photo if index < len(photos) else _crop(photo, random)))
    return np.stack(made)


def _crop(photo: Image.Image, random: np.random.Generator) -> Image.Image:
    side = float(np.sqrt(random.uniform(0.25, 1.0)))
    width, height = max(1, int(photo.width * side)), max(1, int(photo.height * side))
    left, top = int(random.integers(photo.width - width + 1)), int(random.integers(photo.height - height + 1))
    cut = photo.crop((left, top, left + width, top + height))
    return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else cut


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except OSError as error:
        raise DataError(fault(str(path), "cannot be read as an image", got=str(error))) from None
