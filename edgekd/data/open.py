"""Open the data that a recipe names: read, split, check, fingerprint."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgekd.data.arrays import open_arrays
from edgekd.data.builtin import PREFIX, open_builtin
from edgekd.data.folder import open_folder
from edgekd.data.integrity import (
    check_classes,
    find_duplicates,
    fingerprint,
    missing_classes,
    settle_broken,
    verify,
)
from edgekd.data.saved_dataset import is_saved_dataset, open_saved_dataset
from edgekd.data.source import SPLITS, Dataset, Progress, Samples, Split, noun
from edgekd.data.splits import assign_splits, ids_sha256
from edgekd.data.table import open_table
from edgekd.data.text_rows import SUFFIXES as TEXT_SUFFIXES
from edgekd.data.text_table import open_text_folder, open_text_table
from edgekd.errors import DataError, fault
from edgekd.recipe import DataRecipe

_READERS = {
    ".csv": open_table,
    ".tsv": open_table,
    ".parquet": open_table,
    ".pq": open_table,
    ".npz": open_arrays,
    ".npy": open_arrays,
}


def open_data(
    recipe: DataRecipe, *, base: Path, progress: Progress | None = None, text: bool = False
) -> Dataset:
    """The three splits of ``recipe.path``, every sample of them checked.

    Args:
        recipe: relative paths are below ``base``.
        text: tables hold texts, not paths of images.
        progress: called as ``progress(what, done, total)`` while samples are checked or fetched.

    Raises:
        DataError: missing, unreadable, more broken samples than ``max_broken``, a class without samples.
        MissingDependencyError: the format's package is not installed.
    """
    path = base / Path(recipe.path).expanduser()
    where = recipe.path if recipe.path.startswith(PREFIX) else str(path)
    if recipe.path.startswith(PREFIX):
        samples = open_builtin(recipe, progress, text=text)
    else:
        samples = _read(path, recipe, text)
    source = samples.source
    if recipe.labels:
        check_classes(source, samples.given["train"], where)
    splits, record = assign_splits(samples, recipe)
    digests, broken = verify(source, np.concatenate([splits[split] for split in SPLITS]), progress)
    warnings = [*samples.warnings, *settle_broken(broken, recipe.max_broken, where, noun(source))]
    splits = {
        split: np.array([i for i in splits[split].tolist() if i in digests], np.int64) for split in SPLITS
    }
    for split in SPLITS:
        if not len(splits[split]):
            raise DataError(fault(where, f"no sound {noun(source)} is left for the {split} split"))
    if recipe.labels:
        check_classes(source, splits["train"], where)
        warnings += missing_classes(source, splits)
    warnings += find_duplicates(source, splits, digests)
    origin = record.pop("origin")
    record["splits"] = {
        split: {"samples": len(part), "origin": origin[split], "ids_sha256": ids_sha256(source, part)}
        for split, part in splits.items()
    }
    skipped = [source.sample_id(index) for index in broken]
    train, validation, test = (Split(split, source, splits[split]) for split in SPLITS)
    return Dataset(
        name=source.name,
        classes=source.classes,
        train=train,
        validation=validation,
        test=test,
        fingerprint=fingerprint(source, splits, digests),
        warnings=warnings,
        provenance={
            "path": recipe.path,
            **samples.provenance,
            "labels": recipe.labels,
            **record,
            "skipped": skipped,
        },
    )


def _read(path: Path, recipe: DataRecipe, text: bool) -> Samples:
    if path.is_dir() and text:
        return open_saved_dataset(path, recipe) if is_saved_dataset(path) else open_text_folder(path, recipe)
    if path.is_dir():
        return open_folder(path, recipe)
    if not path.exists():
        raise DataError(fault("data.path", "no such folder or file", got=str(path)))
    readers = dict.fromkeys(TEXT_SUFFIXES, open_text_table) if text else _READERS
    reader = readers.get(path.suffix.lower())
    if reader is None:
        allowed = f"a folder, {', '.join(readers)}, or {PREFIX}NAME"
        raise DataError(fault("data.path", "a file of unknown kind", got=str(path), allowed=allowed))
    return reader(path, recipe)
