"""Which samples calibrate, and what is said of samples that cannot."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from edgekd.data.arrays import ArraySource
from edgekd.data.source import Split
from edgekd.errors import DataError
from edgekd.preprocess import Preprocess
from edgekd.stages import calibration
from edgekd.stages.calibration import calibration_batches, check_batch, choose_samples

LABELS = np.repeat([0, 1, 2, 3], [70, 20, 6, 4])
PREPROCESS = Preprocess(height=8, width=8, channels=1, mean=(0.0,), std=(1.0,), crop_pct=1.0)


def split(labels: np.ndarray = LABELS) -> Split:
    pixels = np.arange(len(labels) * 64, dtype=np.int64).reshape(-1, 8, 8) % 251
    source = ArraySource("toy", pixels.astype(np.uint8), labels, ("a", "b", "c", "d"))
    return Split("train", source, np.arange(len(labels)))


def test_evenly_means_over_the_whole_listing() -> None:
    chosen = choose_samples(split(), 5, "even", seed=0)
    assert chosen.tolist() == [0, 25, 50, 74, 99]
    assert choose_samples(split(), 1000, "even", seed=0).tolist() == list(range(100))


def test_by_classes_means_equally_many_of_each() -> None:
    chosen = choose_samples(split(), 16, "classes", seed=3)
    assert np.bincount(LABELS[chosen]).tolist() == [4, 4, 4, 4]
    chosen = choose_samples(split(), 30, "classes", seed=3)
    assert np.bincount(LABELS[chosen]).tolist() == [10, 10, 6, 4], "a small class gives all it has"


def test_randomly_follows_the_seed() -> None:
    one, same, other = (choose_samples(split(), 20, "random", seed).tolist() for seed in (1, 1, 2))
    assert one == same != other and len(set(one)) == 20 and one == sorted(one)


def context(data: Split) -> SimpleNamespace:
    return SimpleNamespace(data=SimpleNamespace(train=data, validation=data), preprocess=PREPROCESS, seed=0)


def test_what_was_chosen_is_recorded() -> None:
    found = calibration_batches(context(split()), 40, "classes")  # type: ignore[arg-type]
    assert found.facts == {
        "samples": 40, "of": 100, "split": "train", "chosen": "classes", "seed": 0, "classes_seen": 4,
    }  # fmt: skip
    assert sum(map(len, found.batches)) == len(found.labels) == 40


def test_a_sample_with_nan_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = split()
    real = calibration.eval_loader

    def broken(*args: object, **options: object) -> list[dict[str, torch.Tensor]]:
        batches = list(real(*args, **options))  # type: ignore[arg-type]
        batches[1]["inputs"][3, 0, 2, 2] = torch.nan
        return batches

    monkeypatch.setattr(calibration, "eval_loader", broken)
    with pytest.raises(DataError) as raised:
        calibration_batches(context(data), 100, "even")  # type: ignore[arg-type]
    message = str(raised.value)
    assert data.source.sample_id(35) in message and "not finite" in message and "1 values" in message
    assert "\n" not in message


def test_a_sample_of_another_shape_is_named() -> None:
    with pytest.raises(
        DataError, match=r"photo.png: has the wrong shape; got \(1, 9, 8\); allowed: \(1, 8, 8\)"
    ):
        check_batch(torch.zeros(2, 1, 9, 8), ["photo.png", "other.png"], PREPROCESS)
    check_batch(torch.zeros(2, 7, dtype=torch.int64), ["a", "b"], PREPROCESS)
