"""Real images for agreement checks: a folder of the reader's own photos, or Fashion-MNIST."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from edgekd.data.fashion_mnist import open_fashion_mnist
from edgekd.recipe import DataRecipe

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def photos(
    size: int, count: int, folder: Path | None = None, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(count, 3, size, size)`` float32, ImageNet's mean and deviation taken off, and their labels.

    From a folder: random crops of 50 to 100 % of a photo's shorter side, half of them mirrored, labelled by
    the photo. Without one: Fashion-MNIST's pictures, cropped and enlarged likewise, with their classes.
    """
    random = np.random.default_rng(seed)
    pictures, labels = _fashion(count, random) if folder is None else _of_folder(folder)
    taken = []
    for k in range(count):
        picture = pictures[k % len(pictures)]
        side = round(min(picture.size) * random.uniform(0.5 if folder else 0.85, 1.0))
        left = int(random.integers(0, picture.width - side + 1))
        top = int(random.integers(0, picture.height - side + 1))
        crop = picture.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
        pixels = np.asarray(crop, np.float32) / 255
        taken.append((pixels[:, ::-1] if random.random() < 0.5 else pixels) - _MEAN)
    images = np.ascontiguousarray(np.stack(taken).transpose(0, 3, 1, 2) / _STD.reshape(1, 3, 1, 1))
    return images, np.asarray([labels[k % len(pictures)] for k in range(count)])


def _of_folder(folder: Path) -> tuple[list[Image.Image], list[int]]:
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise SystemExit(f"{folder} holds no photo ({', '.join(sorted(_SUFFIXES))})")
    return [Image.open(file).convert("RGB") for file in files], list(range(len(files)))


def _fashion(count: int, random: np.random.Generator) -> tuple[list[Image.Image], list[int]]:
    samples = open_fashion_mnist(DataRecipe(path="builtin:fashion-mnist"))
    source, indices = samples.source, samples.given["test"]
    chosen = random.choice(indices, min(count, len(indices)), replace=False)
    return [source.image(int(k)).convert("RGB") for k in chosen], [int(source.labels[k]) for k in chosen]
