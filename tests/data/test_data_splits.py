from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekd.data import open_data
from edgekd.data.splits import allocate, stratified_subset
from edgekd.errors import DataError
from edgekd.recipe import DataRecipe


def _ids(recipe: DataRecipe, base: Path) -> list[set[str]]:
    data = open_data(recipe, base=base)
    return [{split.sample_id(i) for i in range(len(split))} for split in data.splits()]


def test_the_seed_decides_and_nothing_else(flat_folder: Path) -> None:
    first = _ids(DataRecipe(path="photos"), flat_folder.parent)
    assert first == _ids(DataRecipe(path=str(flat_folder)), Path())
    assert first != _ids(DataRecipe(path="photos", split_seed=1), flat_folder.parent)


def test_a_new_photo_does_not_move_the_others(flat_folder: Path, write_images: Callable[..., None]) -> None:
    before = _ids(DataRecipe(path="photos"), flat_folder.parent)
    write_images(flat_folder / "dog", 7, 20, 24)
    after = _ids(DataRecipe(path="photos"), flat_folder.parent)
    new = set().union(*after) - set().union(*before)
    assert len(new) == 4
    moved = (before[2] - after[2]) | (after[2] - before[2] - new)
    assert len(moved) <= len(after[2] & new) + 1  # only what a new one pushed out


def test_fashion_sized_shares_are_exact() -> None:
    shares = allocate(np.full(10, 6000), 6000, low=0, high=np.full(10, 5999))
    assert shares == [600] * 10


@pytest.mark.parametrize(
    ("sizes", "total", "low", "spare", "expected"),
    [
        ([3, 3, 3], 4, 0, 1, [2, 1, 1]),  # largest remainder, the first of equals
        ([98, 1, 1], 3, 1, 0, [1, 1, 1]),  # every class once
        ([1, 1], 5, 0, 1, [0, 0]),  # nothing to spare
        ([10, 2], 100, 0, 0, [10, 2]),  # all there is
    ],
)
def test_allocate(sizes: list[int], total: int, low: int, spare: int, expected: list[int]) -> None:
    assert allocate(np.array(sizes), total, low=low, high=np.array(sizes) - spare) == expected


def test_subsets_are_stratified_and_nested() -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    keys = np.random.default_rng(0).integers(0, 2**63, 1000).astype(np.uint64)
    small = stratified_subset(labels, np.arange(1000), 50, keys)
    large = stratified_subset(labels, np.arange(1000), 500, keys)
    assert np.bincount(labels[small]).tolist() == [30, 15, 5]
    assert set(small.tolist()) < set(large.tolist())


def test_max_train_counts_before_validation_is_carved() -> None:
    data = open_data(DataRecipe(path="builtin:digits", max_train=300, max_test=50), base=Path())
    assert [len(split) for split in data.splits()] == [270, 30, 50]
    assert np.bincount(data.test.labels).tolist() == [5] * 10
    assert data.provenance["splits"]["test"]["origin"] == "50 of 180: 0.1 of train"
    assert data.provenance["splits"]["train"]["origin"] == "300 of the rest"


def test_max_train_that_leaves_a_class_out(
    flat_folder: Path, write_images: Callable[..., None], refused: Callable[..., object]
) -> None:
    with refused(DataError, "too few samples", "data.max_train"):
        open_data(DataRecipe(path="builtin:digits", max_train=9), base=Path())
    for name in ("emu", "fox", "gnu", "hen"):
        write_images(flat_folder / name, 5, 0, 1)
    with refused(DataError, "no training image: 'emu', 'fox', 'gnu' and 1 more", "data.max_train"):
        open_data(DataRecipe(path="photos", max_train=5), base=flat_folder.parent)


def test_a_single_image_of_a_class_stays_in_train(
    flat_folder: Path, write_images: Callable[..., None]
) -> None:
    write_images(flat_folder / "emu", 5, 0, 1)
    data = open_data(DataRecipe(path="photos"), base=flat_folder.parent)
    assert 2 in data.train.labels
    assert [line for line in data.warnings if "no test image, such as 'emu'" in line]


def test_too_few_to_split(
    tmp_path: Path, write_images: Callable[..., None], refused: Callable[..., object]
) -> None:
    write_images(tmp_path / "d" / "a", 1, 0, 1)
    write_images(tmp_path / "d" / "b", 2, 0, 1)
    with refused(DataError, "too few samples"):
        open_data(DataRecipe(path="d"), base=tmp_path)
