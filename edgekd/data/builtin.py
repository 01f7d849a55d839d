"""The sets that need no path, such as ``builtin:fashion-mnist``; the texts are in ``text_builtin.py``."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgekd.data.arrays import ArraySource
from edgekd.data.fashion_mnist import open_fashion_mnist
from edgekd.data.path_source import PathSource
from edgekd.data.source import UNLABELLED, Progress, Samples
from edgekd.data.text_builtin import TEXT_BUILTIN
from edgekd.errors import DataError, MissingDependencyError, fault, nearest
from edgekd.recipe import DataRecipe

PREFIX = "builtin:"


def open_builtin(recipe: DataRecipe, progress: Progress | None = None, *, text: bool = False) -> Samples:
    """The set that ``recipe.path`` names.

    Raises:
        DataError: no such set, or it cannot be had, or images where texts are wanted or the reverse.
        MissingDependencyError: its package is not installed.
    """
    name = recipe.path.removeprefix(PREFIX)
    sets, others = (TEXT_BUILTIN, BUILTIN) if text else (BUILTIN, TEXT_BUILTIN)
    if name in others:
        task = "image-classification" if text else "text-classification"
        what = f"a set of {'images' if text else 'texts'}"
        raise DataError(
            fault("data.path", what, got=recipe.path, fix=f"set task: {task}, or choose another set")
        )
    if name not in sets:
        fix = nearest(recipe.path, (PREFIX + known for known in sets))
        raise DataError(fault("data.path", "no such built-in set", got=recipe.path, fix=fix))
    return sets[name](recipe, progress)


def open_digits(recipe: DataRecipe, progress: Progress | None = None) -> Samples:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, scaled from 0..16 to 0..255."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingDependencyError(
            fault("builtin:digits", "scikit-learn is not installed", fix="pip install scikit-learn")
        ) from None
    stored = load_digits()
    pixels = np.rint(stored.images * (255 / 16)).astype(np.uint8)
    labels = stored.target if recipe.labels else np.full(len(pixels), UNLABELLED)
    source = ArraySource("digits", pixels, labels, tuple(str(digit) for digit in range(10)))
    provenance = {
        "format": "builtin:digits",
        "licence": "CC-BY-4.0",
        "citation": "Alpaydin and Kaynak, UCI, 1998",
    }
    return Samples(source, {"train": np.arange(len(pixels))}, provenance=provenance)


def open_elpv(recipe: DataRecipe, progress: Progress | None = None) -> Samples:
    """2,624 electroluminescence images of solar cells, 300x300 gray.

    Defective is what the experts gave a probability over 0.5.

    C. Buerhop-Lutz et al., "A Benchmark for Visual Identification of Defective Solar Cells in
    Electroluminescence Imagery", EU PVSEC 2018.
    """
    package = importlib.util.find_spec("elpv_dataset")
    if package is None or not package.submodule_search_locations:
        raise MissingDependencyError(
            fault(
                "builtin:elpv", "the elpv-dataset package is not installed", fix="pip install 'edgekd[elpv]'"
            )
        )
    folder = Path(next(iter(package.submodule_search_locations))) / "data"
    try:
        rows = [
            line.split()
            for line in (folder / "labels.csv").read_text(encoding="utf-8").splitlines()
            if line.strip()
        ]
        paths = [row[0] for row in rows]
        labels = [int(float(row[1]) > 0.5) for row in rows] if recipe.labels else [UNLABELLED] * len(rows)
    except (OSError, ValueError, IndexError):
        fix = "reinstall elpv-dataset==1.0.0.post1"
        raise DataError(
            fault(str(folder / "labels.csv"), "is not the list of a known version", fix=fix)
        ) from None
    source = PathSource("elpv", folder, paths, np.array(labels, np.int64), ("functional", "defective"))
    licence = "CC-BY-NC-SA-4.0"
    warning = f"builtin:elpv is licensed {licence}: no commercial use, share alike"
    provenance = {
        "format": "builtin:elpv",
        "licence": licence,
        "citation": "Buerhop-Lutz et al., EU PVSEC 2018",
    }
    return Samples(source, {"train": np.arange(len(paths))}, [warning], provenance)


BUILTIN: dict[str, Callable[[DataRecipe, Progress | None], Samples]] = {
    "fashion-mnist": open_fashion_mnist,
    "digits": open_digits,
    "elpv": open_elpv,
}
