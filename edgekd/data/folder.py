"""A folder of images: class folders, split folders of class folders, or (without labels) any images at all.

Only paths are listed. Classes are numbered in the plain order of their names, as torchvision's ImageFolder
does.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from edgekd.data.listing import SUFFIXES, Listing
from edgekd.data.path_source import PathSource, printable
from edgekd.data.source import UNLABELLED, Samples
from edgekd.errors import DataError, fault
from edgekd.recipe import DataRecipe

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


def open_folder(path: Path, recipe: DataRecipe) -> Samples:
    """Every image below ``path`` by class and, where sub-folders are named so, by split.

    Raises:
        DataError: it cannot be read, holds no image, or labels are wanted and there are no class folders.
    """
    listing = Listing(path)
    warnings: list[str] = []
    roots = _split_folders(listing, recipe.labels, warnings) or {"train": ""}
    classes = _classes(listing, roots["train"], recipe.labels)
    paths: list[str] = []
    labels: list[int] = []
    given = {}
    for split, folder in roots.items():
        start = len(paths)
        if recipe.labels:
            _refuse_strangers(listing, folder, classes)
            for number, name in enumerate(classes):
                inside = f"{folder}/{name}" if folder else name
                found = listing.images(inside) if (path / inside).is_dir() else []
                paths += found
                labels += [number] * len(found)
        else:
            paths += listing.images(folder)
            labels += [UNLABELLED] * (len(paths) - start)
        given[split] = np.arange(start, len(paths))
    if not paths:
        raise DataError(fault(str(path), "holds no image", allowed=" ".join(sorted(SUFFIXES))))
    warnings += _remarks(listing, classes if recipe.labels else ())
    source = PathSource(path.resolve().name, path, paths, np.array(labels, np.int64), classes)
    return Samples(source, given, warnings, {"format": "folder"})


def _split_folders(listing: Listing, labelled: bool, warnings: list[str]) -> dict[str, str] | None:
    """Sub-folder of each split, ``train`` first; None where the folder is not laid out by splits."""
    names = listing.folders("")
    named: dict[str, str] = {}
    others = []
    for name in names:
        split = SPLIT_NAMES.get(name.lower())
        if split is None:
            others.append(name)
        elif split in named:
            raise DataError(fault(str(listing.root), f"two {split} folders", got=f"{named[split]}, {name}"))
        else:
            named[split] = name
    if "train" not in named or (others and len(named) == 1):
        return None  # a class may be called 'train': only beside another split does the name mean a split
    nested = bool(listing.folders(named["train"]))
    if labelled and not nested:
        if others or listing.images(""):
            return None
        raise DataError(fault(str(listing.root / named["train"]), "holds no class folders"))
    if others:
        warnings.append(
            f"{listing.root}: folders beside the splits are not used: {', '.join(map(printable, others))}"
        )
    return {split: named[split] for split in ("train", "validation", "test") if split in named}


def _classes(listing: Listing, folder: str, labelled: bool) -> tuple[str, ...]:
    names = listing.folders(folder)
    if not labelled:
        return () if listing.holds_images(folder) else tuple(names)
    if not names:
        fix = "one folder for each class, or data.labels: false to use the images without labels"
        raise DataError(fault(str(listing.root / folder), "holds no class folders", fix=fix))
    return tuple(names)


def _refuse_strangers(listing: Listing, folder: str, classes: tuple[str, ...]) -> None:
    for name in listing.folders(folder):
        if name not in classes:
            where = str(listing.root / folder / name)
            raise DataError(
                fault(where, "a class that the training folder does not have", allowed=_some(classes))
            )


def _remarks(listing: Listing, classes: tuple[str, ...]) -> list[str]:
    remarks = []
    if listing.ignored:
        counts = ", ".join(f"{count} {suffix}" for suffix, count in listing.ignored.most_common(5))
        remarks.append(f"{listing.root}: files that are not images were passed over: {counts}")
    natural = sorted(classes, key=_natural)
    if natural != list(classes):
        at = next(i for i, (one, other) in enumerate(zip(classes, natural, strict=True)) if one != other)
        remarks.append(
            f"{listing.root}: classes are numbered in plain order ({classes[at]!r} before {natural[at]!r}); "
            "a teacher trained on another order would be scored against the wrong names"
        )
    return remarks


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name.lower())
    ]


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:8]) + (f", ... ({len(names)} in all)" if len(names) > 8 else "")
