"""A CSV or Parquet table: one row an image, with a path (relative to the table's folder) and a label."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from edgekd.data.folder import SPLIT_NAMES
from edgekd.data.labels import number_labels
from edgekd.data.path_source import PathSource
from edgekd.data.source import SPLITS, UNLABELLED, Samples
from edgekd.errors import DataError, MissingDependencyError, fault, nearest
from edgekd.recipe import DataRecipe

Columns = dict[str, list[str]]
_MISSING = ""


def open_table(path: Path, recipe: DataRecipe) -> Samples:
    """A ``.csv``, ``.tsv`` or ``.parquet`` file.

    Raises:
        DataError: not readable, a column missing, a row without path or label, an unknown split.
        MissingDependencyError: Parquet without pyarrow.
    """
    wanted = {"data.image_column": recipe.image_column}
    if recipe.labels:
        wanted["data.label_column"] = recipe.label_column
    if recipe.split_column is not None:
        wanted["data.split_column"] = recipe.split_column
    parquet = path.suffix in (".parquet", ".pq")
    columns = _read_parquet(path, wanted) if parquet else _read_csv(path, wanted)
    paths = [
        text.replace("\\", "/") for text in _filled(columns[recipe.image_column], path, recipe.image_column)
    ]
    if not paths:
        raise DataError(fault(str(path), "holds no rows"))
    classes: tuple[str, ...] = ()
    labels = np.full(len(paths), UNLABELLED)
    if recipe.labels:
        labels, classes = number_labels(_filled(columns[recipe.label_column], path, recipe.label_column))
    given = {"train": np.arange(len(paths))}
    if recipe.split_column is not None:
        given = by_split(columns[recipe.split_column], path, recipe.split_column)
    source = PathSource(path.stem, path.parent, paths, labels, classes)
    return Samples(source, given, provenance={"format": "parquet" if parquet else "csv"})


def _read_csv(path: Path, wanted: dict[str, str]) -> Columns:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            header = stream.readline()
            delimiter = max(",;\t", key=header.count)
            stream.seek(0)
            rows = csv.reader(stream, delimiter=delimiter, strict=True)
            names = next(rows, [])
            _check_columns(path, names, wanted)
            keep = {name: names.index(name) for name in wanted.values()}
            columns: Columns = {name: [] for name in keep}
            for row in rows:
                if not row:
                    continue
                if len(row) != len(names):
                    spot = f"{path}:{rows.line_num}"
                    raise DataError(
                        fault(spot, "a row of another length", got=len(row), allowed=f"{len(names)} columns")
                    )
                for name, position in keep.items():
                    columns[name].append(row[position].strip())
            return columns
    except UnicodeDecodeError:
        raise DataError(fault(str(path), "not a CSV file: not UTF-8 text")) from None
    except csv.Error as error:
        raise DataError(fault(str(path), "not a CSV file", got=str(error))) from None
    except OSError as error:
        raise DataError(fault(str(path), "cannot be read", got=error.strerror)) from None


def _read_parquet(path: Path, wanted: dict[str, str]) -> Columns:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        fix = "pip install pyarrow, or store the table as CSV"
        raise MissingDependencyError(fault(str(path), "reading Parquet needs pyarrow", fix=fix)) from None
    try:
        # Column by column: a label column is not even read where labels are not wanted.
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow.names, wanted)
            table = file.read(columns=list(wanted.values()))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(fault(str(path), "not a Parquet file", got=str(error).splitlines()[0])) from None
    columns: Columns = {}
    for name in wanted.values():
        kind = table.schema.field(name).type
        if pyarrow.types.is_nested(kind) or pyarrow.types.is_binary(kind):
            raise DataError(fault(f"{path}: {name}", "not text or numbers", got=str(kind)))
        columns[name] = [_MISSING if value is None else _text(value) for value in table[name].to_pylist()]
    return columns


def _text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # whole numbers become floats where a column has gaps
    return _MISSING if value != value else str(value).strip()  # NaN is a gap


def columns_hint(key: str, name: str, names: list[str]) -> str:
    """What to do where none of a file's columns is called ``name``, as ``key`` of the recipe has it."""
    return f"{nearest(name, names)}; choose with --set {key}=COLUMN" if names else "the file is empty"


def _check_columns(path: Path, names: list[str], wanted: dict[str, str]) -> None:
    for key, name in wanted.items():
        if name not in names:
            fix = columns_hint(key, name, names)
            if key == "data.image_column" and "text" in names:
                fix = "for a table of texts set task: text-classification (--set task=text-classification)"
            raise DataError(fault(str(path), f"no column for {key}", got=name, fix=fix))
        if names.count(name) > 1:
            raise DataError(fault(str(path), f"two columns for {key}", got=name))


def _filled(values: list[str], path: Path, column: str) -> list[str]:
    gaps = [position for position, value in enumerate(values) if value == _MISSING]
    if gaps:
        what = f"{len(gaps)} of {len(values)} rows have no value, the first is row {gaps[0] + 1}"
        raise DataError(fault(f"{path}: {column}", what, fix="fill them in or remove the rows"))
    return values


def by_split(values: list[str], path: Path, column: str) -> dict[str, np.ndarray]:
    """Row numbers of each split that a column names.

    Raises:
        DataError: an unknown split, or none for training.
    """
    unknown = [value for value in values if value.lower() not in SPLIT_NAMES]
    if unknown:
        allowed = ", ".join(SPLIT_NAMES)
        raise DataError(fault(f"{path}: {column}", "not a split", got=unknown[0], allowed=allowed))
    names = np.array([SPLIT_NAMES[value.lower()] for value in values])
    given = {split: np.flatnonzero(names == split) for split in SPLITS if (names == split).any()}
    if "train" not in given:
        raise DataError(fault(f"{path}: {column}", "no row is for training", got=", ".join(given)))
    return given
