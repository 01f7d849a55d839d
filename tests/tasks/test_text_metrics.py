"""Metrics of texts against scikit-learn's, and the baseline without a network."""

from __future__ import annotations

import builtins
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

from edgekd.data.source import Dataset, Split
from edgekd.data.text_source import TextList
from edgekd.errors import DataError, MissingDependencyError, PostconditionError
from edgekd.tasks import IMAGE, TASKS, TEXT
from edgekd.tasks.text_baseline import NAME, text_baseline

RNG = np.random.default_rng(0)


def test_one_label_adds_macro_f1_to_the_images_metrics():
    logits, labels = RNG.normal(size=(300, 5)), RNG.integers(0, 4, 300)
    logits[np.arange(300), labels] += 1
    found = TEXT.metrics(logits, labels, logits[::-1])
    plain = IMAGE.metrics(logits, labels, logits[::-1])
    assert {key: found[key] for key in plain} == plain
    assert found["f1_macro"] == pytest.approx(sk.f1_score(labels, logits.argmax(1), average="macro"))
    few, wide = labels[:8] % 3, np.eye(5)[[0, 1, 2, 0, 0, 4, 2, 2]]  # nothing is or is called class 3
    assert TEXT.metrics(wide, few)["f1_macro"] == pytest.approx(
        sk.f1_score(few, wide.argmax(1), average="macro")
    )
    assert TEXT.metrics(logits, None)["f1_macro"] is None
    assert TEXT.metrics(logits, np.where(np.arange(300) < 9, -1, labels))["f1_macro"] is None


def test_several_labels():
    logits = RNG.normal(size=(200, 6))
    targets = (logits + RNG.normal(size=logits.shape) > 0.4).astype(np.float32)
    teacher = logits + 0.3 * RNG.normal(size=logits.shape)
    found = TEXT.metrics(logits, targets, teacher)
    claimed = logits > 0
    assert found["f1_micro"] == pytest.approx(sk.f1_score(targets, claimed, average="micro"))
    assert found["f1_macro"] == pytest.approx(sk.f1_score(targets, claimed, average="macro"))
    assert found["exact_match"] == pytest.approx(sk.accuracy_score(targets, claimed))
    losses = [sk.log_loss(targets[:, k], 1 / (1 + np.exp(-logits[:, k])), labels=[0, 1]) for k in range(6)]
    assert found["nll"] == pytest.approx(np.mean(losses))
    assert found["agreement"] == pytest.approx(((teacher > 0) == claimed).all(axis=1).mean())
    assert 0.1 < found["agreement"] < 0.9 and "top1" not in found
    assert TEXT.metrics(1e4 * logits, targets)["nll"] > 0  # no overflow


def test_wrong_shapes_and_answers_are_refused():
    targets = np.ones((4, 3), np.float32)
    with pytest.raises(ValueError, match="targets"):
        TEXT.metrics(np.zeros((4, 2)), targets)
    with pytest.raises(PostconditionError, match="not finite"):
        TEXT.metrics(np.full((4, 3), np.nan), targets)


def test_a_task_says_what_epochs_are_compared_by():
    assert TASKS["text-classification"].text and not TASKS["image-classification"].text
    assert TEXT.criterion(several=True) == "f1_micro" and TEXT.criterion(several=False) == "top1"
    one, other = np.array([[1.0, 2.0], [3.0, -1.0]]), np.array([[-1.0, 2.0], [3.0, -2.0]])
    assert (
        IMAGE.agreement(one, other, several=False) == 1.0 and TEXT.agreement(one, other, several=True) == 0.5
    )


def dataset(rows, targets=None):
    """Train, validation and test from ``news`` rows."""
    classes = tuple(sorted({row["label"] for row in rows}))
    labels = np.array([classes.index(row["label"]) for row in rows])
    source = TextList(
        "news", [row["text"] for row in rows], [str(i) for i in range(len(rows))], labels, classes, targets
    )
    order = np.arange(len(rows))
    parts = [
        Split(name, source, order[start::5]) for start, name in enumerate(("train", "validation", "test"))
    ]
    return Dataset("news", classes, *parts, fingerprint="", warnings=[], provenance={})


def test_the_baseline_learns_the_news(news):
    found = text_baseline(dataset(news(400)))
    assert found["name"] == NAME and found["metrics"]["top1"] > 0.95 and found["words"] in (1, 2)
    assert found["metrics"]["ece"] is None and found["metrics"]["nll"] is None and found["features"] > 20
    shuffled = [{**row, "text": "the same words"} for row in news(400)]
    assert text_baseline(dataset(shuffled))["metrics"]["top1"] < 0.5


def test_the_baseline_of_two_classes_several_labels_and_pairs(news):
    two = [row for row in news(400) if row["label"] in ("earn", "crude")]
    assert text_baseline(dataset(two))["metrics"]["top1"] > 0.95
    rows = news(400)
    targets = np.stack([["profit" in row["text"], "oil" in row["text"], "pct" in row["text"], "mln" in row["text"]]
                        for row in rows]).astype(np.float32)  # fmt: skip
    found = text_baseline(dataset(rows, targets))["metrics"]
    assert found["f1_micro"] > 0.9 and found["exact_match"] > 0.8
    paired = dataset(news(200))
    paired.train.source.texts = [(text, "and so on") for text in paired.train.source.texts]
    assert text_baseline(paired)["metrics"]["top1"] > 0.9


def test_the_baseline_says_what_it_lacks(news, monkeypatch):
    data = dataset(news(100))
    data.train.source.labels[:] = -1
    with pytest.raises(DataError, match="needs labels"):
        text_baseline(data)
    real = builtins.__import__

    def without(name, *arguments, **more):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match="pip install scikit-learn"):
        text_baseline(dataset(news(100)))


def test_importing_the_tasks_needs_no_scikit_learn():
    source = Path(__import__("edgekd.tasks.text_baseline", fromlist=["x"]).__file__).read_text()
    assert "\nfrom sklearn" not in source and "\nimport sklearn" not in source
