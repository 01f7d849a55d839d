"""Which sample is for what: seeded, stratified, and the same on every machine.

A sample's place follows from the hash of its id and the seed, so a split does not depend on the order of
the listing, on NumPy's version, or (but for the rounding) on the samples beside it: a photo added to a
folder does not move the others from test to train.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from edgekd.data.hashing import text_key
from edgekd.data.source import SPLITS, Samples, SampleSource, noun
from edgekd.errors import DataError, fault
from edgekd.recipe import DataRecipe


def assign_splits(samples: Samples, recipe: DataRecipe) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Source indices of train, validation and test, and how each came to be.

    Test is the data's own, else its validation split (the part that people report on where a set has no
    other), else carved from train. Validation is the data's own where it has three splits, else carved from
    train; never from test. ``max_train`` counts before validation is carved.

    Raises:
        DataError: too few samples for three splits.
    """
    source, given = samples.source, samples.given
    origin = dict.fromkeys(given, "given") if len(given) > 1 else {"train": "the rest"}
    train, test, validation = given["train"], given.get("test"), given.get("validation")
    if test is None and validation is not None:
        test, validation = validation, None
        origin["test"] = "the data's validation split: it has no test split"
    keys = np.zeros(len(source), np.uint64)
    for index in np.concatenate([part for part in (train, test) if part is not None]):
        keys[index] = text_key(recipe.split_seed, source.sample_id(int(index)))
    if test is None:
        train, test = _carve(source, train, recipe.test_fraction, keys)
        origin["test"] = f"{recipe.test_fraction:g} of train"
    if recipe.max_train is not None and recipe.max_train < len(train):
        train = stratified_subset(source.labels, train, recipe.max_train, keys)
        origin["train"] = f"{recipe.max_train} of {origin['train']}"
    if validation is None:
        train, validation = _carve(source, train, recipe.validation_fraction, keys)
        origin["validation"] = f"{recipe.validation_fraction:g} of train"
    if recipe.max_test is not None and recipe.max_test < len(test):
        origin["test"] = f"{recipe.max_test} of {len(test)}: {origin['test']}"
        test = stratified_subset(source.labels, test, recipe.max_test, keys)
    splits = {"train": train, "validation": validation, "test": test}
    return splits, {"seed": recipe.split_seed, "origin": {split: origin[split] for split in SPLITS}}


def _carve(
    source: SampleSource, pool: np.ndarray, fraction: float, keys: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """``pool`` without ``fraction`` of it, and that fraction; every class keeps at least one sample."""
    labels = source.labels[pool]
    numbers, sizes = np.unique(labels, return_counts=True)
    wanted = max(1, round(fraction * len(pool)))
    shares = dict(zip(numbers.tolist(), allocate(sizes, wanted, low=0, high=sizes - 1), strict=True))
    chosen = _choose(labels, keys[pool], shares)
    if not chosen.any():
        what, fix = f"too few samples to split: {len(pool)}", f"add {noun(source)}s, or raise data.max_train"
        raise DataError(fault(source.name, what, allowed="two of a class", fix=fix))
    return pool[~chosen], pool[chosen]


def stratified_subset(labels: np.ndarray, pool: np.ndarray, count: int, keys: np.ndarray) -> np.ndarray:
    """``count`` of ``pool``, by class in proportion, at least one of each where ``count`` allows it.

    A smaller ``count`` gives a part of what a larger one gives, but for rounding.
    """
    numbers, sizes = np.unique(labels[pool], return_counts=True)
    low = int(count >= len(numbers))
    shares = dict(zip(numbers.tolist(), allocate(sizes, count, low=low, high=sizes), strict=True))
    return pool[_choose(labels[pool], keys[pool], shares)]


def allocate(sizes: np.ndarray, total: int, *, low: int, high: np.ndarray) -> list[int]:
    """``total`` in proportion to ``sizes`` by largest remainder, each share within ``low..high``."""
    total = int(min(total, high.sum()))
    quotas = total * sizes / sizes.sum()
    shares = np.clip(np.floor(quotas), low, high).astype(np.int64)
    while shares.sum() != total:
        step = 1 if shares.sum() < total else -1
        open_ = shares < high if step > 0 else shares > low
        lag = np.where(open_, step * (quotas - shares), -np.inf)
        shares[int(np.argmax(lag))] += step
    return shares.tolist()


def _choose(labels: np.ndarray, keys: np.ndarray, shares: dict[int, int]) -> np.ndarray:
    """Bool ``(n,)``: in each class, the samples with the smallest keys."""
    chosen = np.zeros(len(labels), bool)
    for number, share in shares.items():
        members = np.flatnonzero(labels == number)
        chosen[members[np.argsort(keys[members], kind="stable")[:share]]] = True
    return chosen


def ids_sha256(source: SampleSource, indices: np.ndarray) -> str:
    """Hex digest of a split's sample ids in order: two runs with one digest used the same split."""
    digest = hashlib.sha256()
    for index in indices:
        digest.update(source.sample_id(int(index)).encode() + b"\0")
    return digest.hexdigest()
