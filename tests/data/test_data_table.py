from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from edgekd.data import open_data
from edgekd.errors import DataError
from edgekd.recipe import DataRecipe

Refused = Callable[..., object]


def _rows(folder: Path) -> list[tuple[str, str]]:
    return [(str(path.relative_to(folder.parent)), path.parent.name) for path in sorted(folder.rglob("*.*"))]


def _csv(folder: Path, header: str, rows: list[tuple[str, ...]]) -> Path:
    path = folder.parent / "table.csv"
    separator = ";" if ";" in header else ","
    path.write_text("\n".join([header, *(separator.join(row) for row in rows)]) + "\n", encoding="utf-8")
    return path


def test_csv_paths_are_relative_to_the_table(flat_folder: Path, tmp_path: Path) -> None:
    _csv(flat_folder, "path,label", _rows(flat_folder))
    data = open_data(DataRecipe(path="table.csv"), base=tmp_path)
    assert data.classes == ("cat", "dog")
    assert [len(split) for split in data.splits()] == [32, 4, 4]
    assert data.train.sample_id(0).startswith(f"photos/{data.classes[data.train.labels[0]]}/")


def test_other_columns_semicolons_and_numeric_labels(flat_folder: Path, tmp_path: Path) -> None:
    rows = [("x", path, {"cat": "10", "dog": "9"}[label]) for path, label in _rows(flat_folder)]
    _csv(flat_folder, "note;file;kind", rows)
    recipe = DataRecipe(path="table.csv", image_column="file", label_column="kind")
    assert open_data(recipe, base=tmp_path).classes == ("9", "10")  # by value, not as text


def test_split_column(flat_folder: Path, tmp_path: Path) -> None:
    rows = _rows(flat_folder)
    names = ["train" if number % 4 else "Test" for number in range(len(rows))]
    _csv(flat_folder, "path,label,part", [(*row, name) for row, name in zip(rows, names, strict=True)])
    data = open_data(DataRecipe(path="table.csv", split_column="part"), base=tmp_path)
    assert [len(split) for split in data.splits()] == [27, 3, 10]
    assert data.test.sample_id(0) == rows[0][0]


def test_parquet_gives_what_csv_gives(flat_folder: Path, tmp_path: Path) -> None:
    rows = _rows(flat_folder)
    _csv(flat_folder, "path,label", rows)
    paths, labels = zip(*rows, strict=True)
    table = pyarrow.table({"path": paths, "label": pyarrow.array(labels).dictionary_encode()})
    pyarrow.parquet.write_table(table, tmp_path / "table.parquet")
    from_csv = open_data(DataRecipe(path="table.csv"), base=tmp_path)
    from_parquet = open_data(DataRecipe(path="table.parquet"), base=tmp_path)
    assert from_parquet.fingerprint == from_csv.fingerprint


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_label_free_needs_no_label_column(flat_folder: Path, tmp_path: Path, suffix: str) -> None:
    rows = [(path,) for path, _ in _rows(flat_folder)]
    _csv(flat_folder, "path", rows)
    pyarrow.parquet.write_table(
        pyarrow.table({"path": [path for (path,) in rows]}), tmp_path / "table.parquet"
    )
    data = open_data(DataRecipe(path=f"table.{suffix}", labels=False), base=tmp_path)
    assert data.classes == ()
    assert (data.train.labels == -1).all()


def test_missing_column_names_the_nearest(flat_folder: Path, tmp_path: Path, refused: Refused) -> None:
    _csv(flat_folder, "path,labels", _rows(flat_folder))
    with refused(DataError, "table.csv", "data.label_column", "'labels'"):
        open_data(DataRecipe(path="table.csv"), base=tmp_path)


def test_a_table_of_texts_says_how_it_is_read(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "table.csv").write_text("text,label\na b,x\nc d,y\n")
    with refused(DataError, "data.image_column", "--set task=text-classification"):
        open_data(DataRecipe(path="table.csv"), base=tmp_path)


def test_rows_without_label(flat_folder: Path, tmp_path: Path, refused: Refused) -> None:
    rows = _rows(flat_folder)
    rows[3] = (rows[3][0], "")
    rows[7] = (rows[7][0], " ")
    _csv(flat_folder, "path,label", rows)
    with refused(DataError, "2 of 40 rows have no value", "row 4"):
        open_data(DataRecipe(path="table.csv"), base=tmp_path)


def test_parquet_nulls_and_nested_columns(flat_folder: Path, tmp_path: Path, refused: Refused) -> None:
    paths, labels = zip(*_rows(flat_folder), strict=True)
    table = pyarrow.table({"path": paths, "label": [None, *labels[1:]]})
    pyarrow.parquet.write_table(table, tmp_path / "table.parquet")
    with refused(DataError, "1 of 40 rows", "row 1"):
        open_data(DataRecipe(path="table.parquet"), base=tmp_path)
    table = pyarrow.table({"path": [{"bytes": b"", "path": path} for path in paths], "label": labels})
    pyarrow.parquet.write_table(table, tmp_path / "table.parquet")
    with refused(DataError, "table.parquet: path", "struct"):
        open_data(DataRecipe(path="table.parquet"), base=tmp_path)


def test_a_row_cut_off(flat_folder: Path, tmp_path: Path, refused: Refused) -> None:
    path = _csv(flat_folder, "path,label", _rows(flat_folder))
    path.write_text(path.read_text()[: -len(",dog\n") - 3])
    with refused(DataError, "table.csv:41", "another length", "2 columns"):
        open_data(DataRecipe(path="table.csv"), base=tmp_path)


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\xff\xfe", b'path,label\n"a.png,cat\nb.png', b"path,label\n", b""]
)
def test_what_is_no_csv(tmp_path: Path, refused: Refused, content: bytes) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    with refused(DataError, "table.csv"):
        open_data(DataRecipe(path="table.csv"), base=tmp_path)


def test_a_truncated_parquet_file(flat_folder: Path, tmp_path: Path, refused: Refused) -> None:
    paths, labels = zip(*_rows(flat_folder), strict=True)
    path = tmp_path / "table.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"path": paths, "label": labels}), path)
    for content in (path.read_bytes()[:-20], path.read_bytes()[:3], b""):
        path.write_bytes(content)
        with refused(DataError, "table.parquet", "not a Parquet file"):
            open_data(DataRecipe(path="table.parquet"), base=tmp_path)


def test_a_path_that_is_not_there_counts_as_broken(
    flat_folder: Path, tmp_path: Path, refused: Refused
) -> None:
    _csv(flat_folder, "path,label", [*_rows(flat_folder), ("photos/cat/lost.png", "cat")])
    with refused(DataError, "1 broken image", "lost.png", "no such image"):
        open_data(DataRecipe(path="table.csv"), base=tmp_path)
    assert open_data(DataRecipe(path="table.csv", max_broken=1), base=tmp_path).provenance["skipped"]


def test_unknown_and_missing_splits(flat_folder: Path, tmp_path: Path, refused: Refused) -> None:
    recipe = DataRecipe(path="table.csv", split_column="part")
    _csv(flat_folder, "path,label,part", [(*row, "fold1") for row in _rows(flat_folder)])
    with refused(DataError, "'fold1'", "validation"):
        open_data(recipe, base=tmp_path)
    _csv(flat_folder, "path,label,part", [(*row, "test") for row in _rows(flat_folder)])
    with refused(DataError, "no row is for training"):
        open_data(recipe, base=tmp_path)
