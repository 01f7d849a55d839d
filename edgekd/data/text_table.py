"""Text in tables: one file, or one file a split in a folder; and what all formats share: rows to samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.data.folder import SPLIT_NAMES
from edgekd.data.source import SPLITS, UNLABELLED, Samples
from edgekd.data.table import by_split
from edgekd.data.text_labels import Labels, hidden_separator, read_labels
from edgekd.data.text_rows import SUFFIXES, Rows, Wanted, read_rows
from edgekd.data.text_source import TextList
from edgekd.errors import DataError, fault
from edgekd.preprocess_text import Text
from edgekd.recipe import DataRecipe

DEFAULT_PAIR = "text_pair"


def wanted_columns(recipe: DataRecipe, *, split: bool = True) -> Wanted:
    """What the recipe asks of a table; labels are not even read where they are not wanted."""
    required = {"data.text_column": recipe.text_column}
    if recipe.pair_column is not None:
        required["data.pair_column"] = recipe.pair_column
    if recipe.labels:
        required["data.label_column"] = recipe.label_column
    if split and recipe.split_column is not None:
        required["data.split_column"] = recipe.split_column
    return Wanted(required, () if recipe.pair_column is not None else (DEFAULT_PAIR,))


def open_text_table(path: Path, recipe: DataRecipe) -> Samples:
    """A ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` file, split by a column where the recipe names one.

    Raises:
        DataError: not readable, a column missing, a row without label, an unknown split.
        MissingDependencyError: Parquet without pyarrow.
    """
    rows = read_rows(path, wanted_columns(recipe))
    form = path.suffix.lower().lstrip(".")
    if recipe.split_column is None:
        return samples_of({"train": rows}, recipe, name=path.stem, where=str(path), form=form)
    values = ["" if value is None else str(value) for value in rows.columns.pop(recipe.split_column)]
    given = by_split(values, path, recipe.split_column)
    parts = {split: _take(rows, indices) for split, indices in given.items()}
    return samples_of(parts, recipe, name=path.stem, where=str(path), form=form)


def open_text_folder(path: Path, recipe: DataRecipe) -> Samples:
    """A folder with a file a split (``train.csv``, ``test.jsonl``, ``train-00000-of-00002.parquet``, ...).

    Raises:
        DataError: no such files, or one of them is not readable.
    """
    files: dict[str, list[Path]] = {}
    for file in sorted(path.iterdir()):
        split = SPLIT_NAMES.get(file.stem.split("-")[0].lower())
        if split is not None and file.suffix.lower() in SUFFIXES:
            files.setdefault(split, []).append(file)
    if "train" not in files:
        allowed = f"train.csv and test.csv (or {', '.join(SUFFIXES)}), or a folder of datasets' save_to_disk"
        got = ", ".join(sorted(each.name for each in path.iterdir())[:5]) or "an empty folder"
        raise DataError(fault(str(path), "holds no text data", got=got, allowed=allowed))
    wanted = wanted_columns(recipe, split=False)
    parts = {split: joined([read_rows(file, wanted) for file in found]) for split, found in files.items()}
    return samples_of(parts, recipe, name=path.resolve().name, where=str(path), form="text folder")


def joined(parts: list[Rows]) -> Rows:
    """Several files' rows as one table's."""
    columns = {name: [value for part in parts for value in part.columns[name]] for name in parts[0].columns}
    return Rows(columns, [name for part in parts for name in part.names], parts[0].classes)


def samples_of(
    parts: Mapping[str, Rows],
    recipe: DataRecipe,
    *,
    name: str,
    where: str,
    form: str,
    warnings: list[str] | None = None,
    provenance: dict[str, Any] | None = None,
) -> Samples:
    """Rows by split as samples.

    Raises:
        DataError: no row, a row without label, or a label outside the training rows'.
    """
    ordered = [split for split in SPLITS if split in parts]
    texts: list[Text] = []
    given, start = {}, 0
    for split in ordered:
        texts += _texts(parts[split], recipe)
        given[split] = np.arange(start, len(texts))
        start = len(texts)
    if not texts or not len(given["train"]):
        raise DataError(fault(where, "holds no rows"))
    rows = joined([parts[split] for split in ordered])
    labels = Labels(np.full(len(texts), UNLABELLED), ())
    remarks = list(warnings or ())
    if recipe.labels:
        labels = read_labels(
            rows.columns[recipe.label_column], rows.names, names=rows.classes,
            separator=recipe.label_separator, where=f"{where}: {recipe.label_column}",
        )  # fmt: skip
        hint = _separator_hint(labels)
        if hint is not None:
            remarks.append(f"{where}: {recipe.label_column}: {hint}")
        _refuse_strangers(labels, given, rows.names, fix=hint)
    source = TextList(name, texts, rows.names, labels.numbers, labels.classes, labels.targets)
    facts = {"format": form, **(provenance or {})}
    if labels.targets is not None:
        facts["labels per text"] = round(float(labels.targets.sum(axis=1).mean()), 3)
    return Samples(source, given, remarks, facts)


def _texts(rows: Rows, recipe: DataRecipe) -> list[Text]:
    first = [_cell(value) for value in rows.columns[recipe.text_column]]
    pair = recipe.pair_column or DEFAULT_PAIR
    if pair not in rows.columns:
        return list(first)
    return list(zip(first, map(_cell, rows.columns[pair]), strict=True))


def _cell(value: Any) -> str:
    return "" if value is None or value != value else str(value)


def _take(rows: Rows, indices: np.ndarray) -> Rows:
    order = indices.tolist()
    columns = {name: [values[at] for at in order] for name, values in rows.columns.items()}
    return Rows(columns, [rows.names[at] for at in order], rows.classes)


def _separator_hint(labels: Labels) -> str | None:
    found = hidden_separator(labels.classes) if labels.targets is None else None
    if found is None:
        return None
    separator, example = found
    return f"{example!r} is read as one label; where it is several, set data.label_separator: {separator!r}"


def _refuse_strangers(
    labels: Labels, given: dict[str, np.ndarray], names: list[str], *, fix: str | None
) -> None:
    """A label that only a measuring split has cannot be learned: usually it is misspelt."""
    hot = labels.targets if labels.targets is not None else np.eye(len(labels.classes))[labels.numbers]
    unknown = hot[given["train"]].sum(axis=0) == 0
    for split in ("validation", "test"):
        rows = given.get(split, np.zeros(0, np.int64))
        wrong = np.flatnonzero(hot[rows][:, unknown].any(axis=1))
        if len(wrong):
            row = int(rows[wrong[0]])
            got = labels.classes[int(np.flatnonzero(hot[row].astype(bool) & unknown)[0])]
            allowed = ", ".join(
                name for name, not_seen in zip(labels.classes, unknown, strict=True) if not not_seen
            )
            what = f"a label that no training row has ({len(wrong)} {split} rows)"
            raise DataError(fault(names[row], what, got=got, allowed=allowed[:200], fix=fix))
