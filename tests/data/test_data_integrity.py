from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.data import open_data
from edgekd.data.path_source import PathSource
from edgekd.errors import DataError
from edgekd.recipe import DataRecipe

Refused = Callable[..., object]


def _open(folder: Path, **settings: object) -> object:
    return open_data(DataRecipe.model_validate({"path": str(folder), **settings}), base=Path())


def test_a_truncated_jpeg_is_found_and_named(flat_folder: Path, refused: Refused) -> None:
    path = flat_folder / "cat" / "004.jpg"
    path.write_bytes(path.read_bytes()[:-150])
    with refused(DataError, str(path), "1 broken image", "truncated", "data.max_broken"):
        _open(flat_folder)


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "empty"), (b"not an image at all", "not an image"), (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "")],
)
def test_damaged_files(flat_folder: Path, refused: Refused, content: bytes, word: str) -> None:
    (flat_folder / "dog" / "005.png").write_bytes(content)
    with refused(DataError, "dog/005.png", word):
        _open(flat_folder)


def test_sixteen_bit_images_are_refused_and_not_clipped_to_white(flat_folder: Path, refused: Refused) -> None:
    Image.fromarray(np.full((9, 9), 9000, np.uint16)).save(flat_folder / "dog" / "deep.png")
    with refused(DataError, "deep.png", "8 bits"):
        _open(flat_folder)


def test_up_to_max_broken_are_skipped_and_told(flat_folder: Path) -> None:
    for name in ("000.jpg", "001.png"):
        (flat_folder / "cat" / name).write_bytes(b"x")
    data = open_data(DataRecipe(path=str(flat_folder), max_broken=2), base=Path())
    assert sum(map(len, data.splits())) == 38
    assert sorted(data.provenance["skipped"]) == ["cat/000.jpg", "cat/001.png"]
    assert data.warnings[0].startswith("skipped 2 broken images")
    ids = {split.sample_id(i) for split in data.splits() for i in range(len(split))}
    assert "cat/000.jpg" not in ids


def test_many_broken_images_are_counted_and_the_first_named(flat_folder: Path, refused: Refused) -> None:
    for path in (flat_folder / "cat").iterdir():
        path.write_bytes(b"x")
    with refused(DataError, "20 broken images", "and 17 more", "at most 19"):
        _open(flat_folder, max_broken=19)


def test_duplicates_across_splits_are_counted_with_an_example(
    tmp_path: Path, write_images: Callable[..., None]
) -> None:
    for split, (first, last) in {"train": (0, 20), "val": (20, 24), "test": (24, 30)}.items():
        write_images(tmp_path / "d" / split / "a", 1, first, last)
        write_images(tmp_path / "d" / split / "b", 2, first, last)
    shutil.copy(tmp_path / "d/train/a/003.png", tmp_path / "d/test/a/copy.png")
    shutil.copy(tmp_path / "d/train/b/003.png", tmp_path / "d/test/b/copy.png")
    shutil.copy(tmp_path / "d/train/b/003.png", tmp_path / "d/train/b/again.png")  # inside one split: fine
    data = open_data(DataRecipe(path="d"), base=tmp_path)
    assert data.warnings == [
        "2 of 14 test images are also in train, such as train/a/003.png and test/a/copy.png"
    ]


def test_the_check_is_remembered_until_the_file_changes(
    flat_folder: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    decoded: list[int] = []
    digest = PathSource.digest
    monkeypatch.setattr(PathSource, "digest", lambda self, i: decoded.append(i) or digest(self, i))
    first = open_data(DataRecipe(path=str(flat_folder)), base=Path())
    assert len(decoded) == 40
    again = open_data(DataRecipe(path=str(flat_folder)), base=Path())
    assert len(decoded) == 40
    assert again.fingerprint == first.fingerprint
    (flat_folder / "cat" / "001.png").write_bytes(b"changed")
    with refused(DataError, "cat/001.png"):
        _open(flat_folder)
    assert len(decoded) == 41


def test_a_damaged_memory_is_replaced(flat_folder: Path, own_cache: Path) -> None:
    own_cache.mkdir()
    memory = own_cache / "sound-images.sqlite"
    memory.write_bytes(b"this is no database" * 100)
    _open(flat_folder)
    with sqlite3.connect(memory) as database:
        assert database.execute("select count(*) from sound").fetchone() == (40,)


def test_no_memory_where_the_cache_cannot_be_written(flat_folder: Path, own_cache: Path) -> None:
    own_cache.write_text("a file where the folder should be")
    _open(flat_folder)


def test_the_fingerprint_follows_content_split_and_classes(flat_folder: Path) -> None:
    def fingerprint(**settings: object) -> str:
        recipe = DataRecipe.model_validate({"path": str(flat_folder), **settings})
        return open_data(recipe, base=Path()).fingerprint

    first = fingerprint()
    assert fingerprint() == first
    assert fingerprint(split_seed=1) != first
    assert fingerprint(labels=False) != first
    path = flat_folder / "cat" / "001.png"
    Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    assert fingerprint() != first
    before = fingerprint()
    (flat_folder / "cat").rename(flat_folder / "bat")
    assert fingerprint() != before


def test_progress_ends_at_the_total(flat_folder: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    open_data(DataRecipe(path=str(flat_folder)), base=Path(), progress=lambda *call: calls.append(call))
    assert calls[-1] == ("checking images", 40, 40)


def test_file_names_of_any_bytes(flat_folder: Path) -> None:
    source = flat_folder / "cat" / "001.png"
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    source.rename(source.with_name(name))
    data = open_data(DataRecipe(path=str(flat_folder)), base=Path())
    ids = [split.sample_id(i) for split in data.splits() for i in range(len(split))]
    assert "cat/caf\\xe9.png" in ids
    "".join(ids).encode()  # would raise on a lone surrogate
