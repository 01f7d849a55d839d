"""The rows of a text table, whatever the file: ``.csv``, ``.tsv``, ``.jsonl``, ``.parquet`` or Arrow."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekd.data.table import columns_hint
from edgekd.errors import DataError, MissingDependencyError, fault

_CELL_BYTES = 1 << 28  # csv's own limit of 128 KiB is a long mail
Row = tuple[int, list[Any]]
"""A line or row number and its values."""


@dataclass
class Rows:
    """Columns of one split or of a whole table.

    Attributes:
        columns: by name; None is a gap.
        names: of each row, for messages and as its id: ``reviews.csv:17``.
        classes: where the file itself names them; its labels are then numbers.
    """

    columns: dict[str, list[Any]]
    names: list[str]
    classes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Wanted:
    """Columns to read: by recipe key those that must be there, and those that are taken where they are."""

    required: dict[str, str]
    optional: tuple[str, ...] = ()

    def find(self, path: Path, names: Sequence[str]) -> list[str]:
        """Those of ``names`` that are read.

        Raises:
            DataError: a required column is missing or stands twice.
        """
        for key, name in self.required.items():
            if name not in names:
                fix = columns_hint(key, name, [str(each) for each in names])
                raise DataError(fault(str(path), f"no column for {key}", got=name, fix=fix))
            if list(names).count(name) > 1:
                raise DataError(fault(str(path), f"two columns for {key}", got=name))
        return [*self.required.values(), *(name for name in self.optional if name in names)]


def read_rows(path: Path, wanted: Wanted) -> Rows:
    """The columns of one file.

    Raises:
        DataError: not readable, not of its kind (with the line), or a column is missing.
        MissingDependencyError: Parquet or Arrow without pyarrow.
    """
    try:
        if path.suffix.lower() in PARQUET:
            return _parquet(path, wanted)
        if path.suffix.lower() in JSON_LINES:
            return _gather(path, *_json_lines(path, wanted))
        return _gather(path, *_csv(path, wanted))
    except UnicodeDecodeError:
        raise DataError(fault(str(path), "not UTF-8 text")) from None
    except csv.Error as error:
        raise DataError(fault(str(path), "not a CSV file", got=str(error))) from None
    except OSError as error:
        raise DataError(fault(str(path), "cannot be read", got=error.strerror)) from None


PARQUET, JSON_LINES, DELIMITED = (".parquet", ".pq"), (".jsonl", ".ndjson"), (".csv", ".tsv")
SUFFIXES = (*DELIMITED, *JSON_LINES, *PARQUET)


def _gather(path: Path, names: list[str], rows: Iterator[Row]) -> Rows:
    columns: dict[str, list[Any]] = {name: [] for name in names}
    spots = []
    for number, values in rows:
        spots.append(f"{path.name}:{number}")
        for name, value in zip(names, values, strict=True):
            columns[name].append(value)
    return Rows(columns, spots)


def _csv(path: Path, wanted: Wanted) -> tuple[list[str], Iterator[Row]]:
    csv.field_size_limit(_CELL_BYTES)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        header = stream.readline()
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=header.count)
    names = next(csv.reader([header], delimiter=delimiter), [])
    chosen = wanted.find(path, names)
    keep = [names.index(name) for name in chosen]

    def rows() -> Iterator[Row]:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, delimiter=delimiter, strict=True)
            next(reader, None)
            start = reader.line_num + 1
            for row in reader:
                if row and len(row) != len(names):
                    what = "a row of another length"
                    spot = f"{path}:{start}"
                    raise DataError(fault(spot, what, got=len(row), allowed=f"{len(names)} columns"))
                if row:
                    yield start, [row[position].strip() for position in keep]
                start = reader.line_num + 1

    return chosen, rows()


def _json_lines(path: Path, wanted: Wanted) -> tuple[list[str], Iterator[Row]]:
    def objects() -> Iterator[tuple[int, dict[str, Any]]]:
        with path.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError) as error:
                    reason = getattr(error, "msg", type(error).__name__)
                    raise DataError(fault(f"{path}:{number}", f"not JSON: {reason}", got=line[:60])) from None
                if not isinstance(value, dict):
                    allowed = "one JSON object a line"
                    raise DataError(
                        fault(f"{path}:{number}", "not an object", got=line[:60], allowed=allowed)
                    )
                yield number, value

    first = next(objects(), (0, {}))[1]
    chosen = wanted.find(path, list(first))

    def rows() -> Iterator[Row]:
        for number, value in objects():
            yield number, [value.get(name) for name in chosen]

    return chosen, rows()


def _parquet(path: Path, wanted: Wanted) -> Rows:
    require_pyarrow(str(path))
    import pyarrow.parquet

    try:
        # Column by column: a label column is not even read where labels are not wanted.
        with pyarrow.parquet.ParquetFile(path) as file:
            chosen = wanted.find(path, file.schema_arrow.names)
            table = file.read(columns=chosen)
    except (pyarrow.ArrowException, ValueError) as error:
        raise DataError(fault(str(path), "not a Parquet file", got=str(error).splitlines()[0])) from None
    return arrow_rows(table, chosen, path.name)


def arrow_rows(table: Any, chosen: Sequence[str], name: str) -> Rows:
    """A ``pyarrow.Table`` as rows that are numbered from 1."""
    columns = {column: table[column].to_pylist() for column in chosen}
    return Rows(columns, [f"{name}:{number + 1}" for number in range(table.num_rows)])


def require_pyarrow(where: str) -> None:
    """
    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        fix = "pip install pyarrow, or store the table as CSV or JSON lines"
        raise MissingDependencyError(fault(where, "reading it needs pyarrow", fix=fix)) from None
