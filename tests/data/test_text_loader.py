"""Batches of texts: of like length, seeded, padded to their longest, and measured in order."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd.data import eval_batches
from edgekd.data.loader import eval_loader, in_order, train_loader
from edgekd.data.open import open_data
from edgekd.data.tokens import bucketed, cut_warnings, tokens_of
from edgekd.errors import DataError, RecipeError
from edgekd.preprocess import Preprocess
from edgekd.preprocess_text import TextPreprocess
from edgekd.recipe import DataRecipe
from edgekd.recipe_stages import AugmentRecipe


@pytest.fixture
def data(news, tmp_path):
    with (tmp_path / "news.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ("text", "label", "split"))
        writer.writeheader()
        writer.writerows(news(240))
    return open_data(DataRecipe(path=str(tmp_path / "news.csv")), base=Path(), text=True)


@pytest.fixture
def preprocess(tokenizer_json):
    return TextPreprocess.from_content(tokenizer_json, max_length=200, where="x")


def batches(data, preprocess, *, order_seed=3, batch_size=16, **settings):
    settings = {"augment": AugmentRecipe(), "seed": 0, "slot": 0, "workers": None, **settings}
    return list(
        train_loader(data.train, preprocess, batch_size=batch_size, order_seed=order_seed, **settings)
    )


def test_training_batches_hold_each_text_once_as_its_own_ids(data, preprocess):
    found = batches(data, preprocess, drop_last=False)
    seen = torch.cat([batch["indices"] for batch in found])
    assert sorted(seen.tolist()) == sorted(data.train.indices.tolist())
    assert [len(batch["inputs"]) for batch in found] == [16] * 12 + [len(data.train) - 192]
    for batch in found:
        texts = [data.train.source.text(index) for index in batch["indices"].tolist()]
        assert batch["inputs"].dtype == torch.int64
        assert (batch["inputs"].numpy() == preprocess(texts)).all()  # padded to this batch's longest, no more
        assert (batch["labels"].numpy() == data.train.source.labels[batch["indices"].numpy()]).all()
    assert len(batches(data, preprocess)) == 12


def test_the_order_is_a_function_of_its_seed_alone(data, preprocess):
    def order(**settings):
        return torch.cat([batch["indices"] for batch in batches(data, preprocess, **settings)]).tolist()

    assert order() == order(slot=5, seed=9)
    assert order() != order(order_seed=4)


def test_batches_hold_texts_of_like_length(data, preprocess):
    widths = [
        (batch["inputs"] == preprocess.pad_id).float().mean().item() for batch in batches(data, preprocess)
    ]
    plain = tokens_of(data.train.source, preprocess).lengths(data.train.indices)[:192].reshape(12, 16)
    unsorted = np.mean([1 - row.mean() / row.max() for row in plain])
    assert np.mean(widths) < 0.3 * unsorted
    first = [batch["inputs"].shape[1] for batch in batches(data, preprocess)]
    assert first != sorted(first) and first != sorted(first, reverse=True)


def test_buckets_are_a_permutation_with_the_small_batch_last():
    rng = np.random.default_rng(0)
    for count, size in ((1000, 7), (13, 13), (5, 2), (4096, 64)):
        lengths, shuffled = rng.integers(2, 99, count), rng.permutation(count)
        order = bucketed(lengths, shuffled, size)
        assert sorted(order) == list(range(count))
        rest = count % size
        assert (order[count - rest :] == shuffled[count - rest :]).all()
        spread = [np.ptp(lengths[order[at : at + size]]) for at in range(0, count - rest, size)]
        if count == 1000:
            assert np.mean(spread) < 10


def test_measuring_keeps_the_order_even_when_it_sorts_by_length(data, preprocess):
    plain = list(eval_loader(data.test, preprocess, batch_size=5, workers=None))
    assert torch.cat([batch["indices"] for batch in plain]).tolist() == data.test.indices.tolist()
    loader = eval_loader(data.test, preprocess, batch_size=5, workers=None, by_length=True)
    found = np.concatenate([batch["indices"].numpy() for batch in loader])
    assert found.tolist() != data.test.indices.tolist()
    assert in_order(found, loader).tolist() == data.test.indices.tolist()
    numpy = list(eval_batches(data.test, preprocess, batch_size=5))
    assert np.concatenate([indices for _, _, indices in numpy]).tolist() == data.test.indices.tolist()
    assert all((one[0] == other["inputs"].numpy()).all() for one, other in zip(numpy, plain, strict=True))


def test_texts_are_tokenized_once(data, preprocess, monkeypatch):
    calls = []
    own = TextPreprocess.encode
    monkeypatch.setattr(
        TextPreprocess, "encode", lambda self, texts: calls.append(len(texts)) or own(self, texts)
    )
    for seed in range(3):
        batches(data, preprocess, order_seed=seed)
    assert sum(calls) == len(data.train)
    assert tokens_of(data.train.source, preprocess) is tokens_of(data.test.source, preprocess)
    shorter = preprocess.model_copy(update={"max_length": 8})
    assert max(map(len, tokens_of(data.train.source, shorter).of(data.train.indices))) == 8


def test_cut_texts_are_counted_by_split(data, preprocess):
    lengths = [
        len(row) for row in preprocess.encode([data.test.source.text(i) for i in data.test.indices])[0]
    ]
    limit = int(np.median(lengths))
    short = preprocess.model_copy(update={"max_length": limit})
    count = sum(length > limit for length in lengths)
    lines = cut_warnings(data, short)
    assert 0 < count < 24 and f"{count} of 24 test texts are longer than {limit} tokens" in lines[2]
    assert cut_warnings(data, preprocess) == []


def test_augmentation_is_refused_by_value(data, preprocess, refused):
    batches(data, preprocess, augment=AugmentRecipe(hflip=0.5, mixup=0.0))
    with refused(RecipeError, "augment.mixup", "texts are not augmented", "0.2"):
        batches(data, preprocess, augment=AugmentRecipe(mixup=0.2))


def test_images_and_texts_are_not_confused(data, preprocess, refused):
    with refused(DataError, "the data are texts, the model takes images"):
        list(eval_loader(data.test, Preprocess(height=8, width=8), batch_size=4, workers=0))
    digits = open_data(DataRecipe(path="builtin:digits", max_train=60, max_test=20), base=Path())
    with refused(DataError, "the data are images, the model takes text"):
        list(eval_loader(digits.test, preprocess, batch_size=4, workers=0))
