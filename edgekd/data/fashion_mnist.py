"""Fashion-MNIST: 60,000 + 10,000 gray images of 28x28, ten kinds of clothing. MIT licence.

H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", 2017, arXiv:1708.07747.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgekd.data.arrays import ArraySource
from edgekd.data.cache_dir import cache_dir
from edgekd.data.fashion_mnist_fetch import fetch_fashion_mnist
from edgekd.data.idx import read_idx
from edgekd.data.source import UNLABELLED, Progress, Samples
from edgekd.errors import DataError, fault
from edgekd.recipe import DataRecipe

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts the files
FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def open_fashion_mnist(recipe: DataRecipe, progress: Progress | None = None) -> Samples:
    """From the user's cache, else Debian's installed package, else fetched into the cache.

    Raises:
        DataError: it cannot be had, or the files are damaged.
    """
    cached = cache_dir() / "fashion-mnist"
    for folder in (cached, DEBIAN_FOLDER):
        if all((folder / name).is_file() for name in FILES):
            return read_fashion_mnist(folder, recipe)
    fetch_fashion_mnist(cached, FILES, progress)
    return read_fashion_mnist(cached, recipe)


def read_fashion_mnist(folder: Path, recipe: DataRecipe) -> Samples:
    """The four files in ``folder``.

    Raises:
        DataError: a file is truncated, corrupt, or its count differs from its labels'.
    """
    images, labels = [], []
    for prefix in ("train", "t10k"):
        pixels = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", 3)
        if pixels.shape[1:] != (28, 28) or not len(pixels):
            raise DataError(
                fault(
                    str(folder), f"{prefix}: not 28x28 images", got=str(pixels.shape), fix="delete the folder"
                )
            )
        images.append(pixels)
        if recipe.labels:
            numbers = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", 1)
            if len(numbers) != len(pixels) or numbers.max() >= len(CLASSES):
                what = f"{prefix}: labels do not fit the images"
                raise DataError(fault(str(folder), what, got=str(numbers.shape), fix="delete the folder"))
        else:
            numbers = np.full(len(pixels), UNLABELLED)
        labels.append(numbers.astype(np.int64))
    source = ArraySource("fashion-mnist", np.concatenate(images), np.concatenate(labels), CLASSES)
    train = len(images[0])
    given = {"train": np.arange(train), "test": np.arange(train, len(source))}
    provenance = {"format": "builtin:fashion-mnist", "licence": "MIT", "citation": "arXiv:1708.07747"}
    return Samples(source, given, provenance=provenance)
