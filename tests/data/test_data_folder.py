from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgekd.data import open_data
from edgekd.errors import DataError
from edgekd.recipe import DataRecipe

Refused = Callable[..., object]
Write = Callable[..., None]


def test_a_flat_tree_is_split_and_the_split_is_recorded(flat_folder: Path) -> None:
    data = open_data(DataRecipe(path="photos"), base=flat_folder.parent)
    assert data.name == "photos"
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.validation), len(data.test)) == (32, 4, 4)
    indices = np.concatenate([split.indices for split in data.splits()])
    assert sorted(indices.tolist()) == list(range(40))
    for split in data.splits():
        assert np.bincount(split.labels).tolist() == [len(split) // 2] * 2
        for position in range(len(split)):
            assert split.sample_id(position).split("/")[0] == data.classes[split.labels[position]]
    assert data.train.source.image(int(data.train.indices[0])).size == (24, 20)
    assert data.provenance["splits"]["test"]["origin"] == "0.1 of train"
    assert data.warnings == []


def test_split_folders_are_used_as_they_are(tmp_path: Path, write_images: Write) -> None:
    for split, (first, last) in {"Train": (0, 10), "valid": (10, 13), "test": (13, 17)}.items():
        write_images(tmp_path / "d" / split / "a", 1, first, last)
        write_images(tmp_path / "d" / split / "b", 2, first, last)
    data = open_data(DataRecipe(path="d"), base=tmp_path)
    assert [len(split) for split in data.splits()] == [20, 6, 8]
    for split, folder in zip(data.splits(), ("Train", "valid", "test"), strict=True):
        assert {split.sample_id(i).split("/")[0] for i in range(len(split))} == {folder}
    assert data.provenance["splits"]["validation"]["origin"] == "given"


def test_validation_is_carved_from_train_and_never_from_test(tmp_path: Path, write_images: Write) -> None:
    for split, last in {"train": 20, "test": 30}.items():
        for name, digit in {"a": 1, "b": 2}.items():
            write_images(tmp_path / "d" / split / name, digit, 20 if split == "test" else 0, last)
    data = open_data(DataRecipe(path="d"), base=tmp_path)
    assert [len(split) for split in data.splits()] == [36, 4, 20]
    assert all(data.validation.sample_id(i).startswith("train/") for i in range(4))


def test_a_lone_validation_folder_becomes_the_test_split(tmp_path: Path, write_images: Write) -> None:
    for split, (first, last) in {"train": (0, 20), "val": (20, 30)}.items():
        write_images(tmp_path / "d" / split / "a", 1, first, last)
        write_images(tmp_path / "d" / split / "b", 2, first, last)
    data = open_data(DataRecipe(path="d"), base=tmp_path)
    assert [len(split) for split in data.splits()] == [36, 4, 20]
    assert "no test split" in data.provenance["splits"]["test"]["origin"]


def test_a_class_may_be_called_train(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path / "vehicles" / "train", 1, 0, 10)
    write_images(tmp_path / "vehicles" / "train" / "steam", 1, 10, 14)
    write_images(tmp_path / "vehicles" / "plane", 2, 0, 10)
    assert open_data(DataRecipe(path="vehicles"), base=tmp_path).classes == ("plane", "train")


def test_nested_and_hidden_and_foreign_files(flat_folder: Path, write_images: Write) -> None:
    write_images(flat_folder / "cat" / "2024" / "may", 3, 20, 25)
    (flat_folder / "cat" / "._001.jpg").write_bytes(b"mac")
    (flat_folder / ".git").mkdir()
    (flat_folder / "cat" / "IMG_1.HEIC").write_bytes(b"phone")
    data = open_data(DataRecipe(path=str(flat_folder)), base=Path())
    assert sum(map(len, data.splits())) == 45
    assert data.warnings == [f"{flat_folder}: files that are not images were passed over: 1 .heic"]


def test_links_are_followed_but_not_in_circles(
    flat_folder: Path, write_images: Write, tmp_path: Path
) -> None:
    write_images(tmp_path / "elsewhere", 3, 20, 26)
    (flat_folder / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (flat_folder / "cat" / "round").symlink_to(flat_folder / "cat")
    (flat_folder / "bat").symlink_to(tmp_path / "elsewhere")
    data = open_data(DataRecipe(path=str(flat_folder)), base=Path())
    assert np.bincount(np.concatenate([split.labels for split in data.splits()])).tolist() == [6, 26, 20]


def test_class_order_that_a_natural_sort_would_change_is_told(tmp_path: Path, write_images: Write) -> None:
    for name in ("1", "2", "10"):
        write_images(tmp_path / "d" / name, int(name) % 10, 0, 5)
    data = open_data(DataRecipe(path="d", validation_fraction=0.3, test_fraction=0.3), base=tmp_path)
    assert data.classes == ("1", "10", "2")
    assert "plain order ('10' before '2')" in data.warnings[0]


def test_missing_folder(tmp_path: Path, refused: Refused) -> None:
    with refused(DataError, "data.path", str(tmp_path / "nowhere")):
        open_data(DataRecipe(path="nowhere"), base=tmp_path)


def test_empty_folder_and_folder_without_classes(
    tmp_path: Path, refused: Refused, write_images: Write
) -> None:
    write_images(tmp_path / "loose", 1, 0, 4)
    with refused(DataError, "no class folders", "labels: false"):
        open_data(DataRecipe(path="loose"), base=tmp_path)
    (tmp_path / "empty").mkdir()
    with refused(DataError, "no class folders"):
        open_data(DataRecipe(path="empty"), base=tmp_path)
    with refused(DataError, "holds no image", ".png"):
        open_data(DataRecipe(path="empty", labels=False), base=tmp_path)


def test_one_class_only(flat_folder: Path, refused: Refused) -> None:
    shutil.rmtree(flat_folder / "dog")
    with refused(DataError, "one class only", "'cat'"):
        open_data(DataRecipe(path=str(flat_folder)), base=Path())


def test_a_class_without_images(flat_folder: Path, refused: Refused) -> None:
    (flat_folder / "emu").mkdir()
    with refused(DataError, "no training image", "'emu'"):
        open_data(DataRecipe(path=str(flat_folder)), base=Path())


def test_a_test_class_that_training_does_not_have(
    tmp_path: Path, write_images: Write, refused: Refused
) -> None:
    for split, names in {"train": "ab", "test": "abc"}.items():
        for digit, name in enumerate(names):
            write_images(tmp_path / "d" / split / name, digit, 0, 4)
    with refused(DataError, "test/c", "does not have"):
        open_data(DataRecipe(path="d"), base=tmp_path)


def test_a_file_of_unknown_kind(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "data.xlsx").write_bytes(b"PK")
    with refused(DataError, "unknown kind", ".parquet"):
        open_data(DataRecipe(path="data.xlsx"), base=tmp_path)


def test_label_free_takes_any_folder(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path / "loose", 1, 0, 10)
    write_images(tmp_path / "loose" / "more", 2, 0, 10)
    data = open_data(DataRecipe(path="loose", labels=False), base=tmp_path)
    assert data.classes == ()
    assert sum(map(len, data.splits())) == 20
    assert all((split.labels == -1).all() for split in data.splits())


def test_label_free_keeps_the_names_and_not_the_labels(flat_folder: Path) -> None:
    data = open_data(DataRecipe(path=str(flat_folder), labels=False), base=Path())
    assert data.classes == ("cat", "dog")
    assert set(data.train.source.labels.tolist()) == {-1}


def test_label_free_with_one_folder_per_split(tmp_path: Path, write_images: Write) -> None:
    write_images(tmp_path / "d" / "train", 1, 0, 10)
    write_images(tmp_path / "d" / "test", 1, 10, 14)
    data = open_data(DataRecipe(path="d", labels=False), base=tmp_path)
    assert [len(split) for split in data.splits()] == [9, 1, 4]
