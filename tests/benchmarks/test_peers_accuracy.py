"""Top-1 on labelled samples: differences are paired, and the table names who loses what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from benchmarks.peers import trained
from benchmarks.peers.accuracy import markdown_accuracy
from benchmarks.peers.images import open_photos
from benchmarks.peers.judge import beside_edgekd, judge
from benchmarks.peers.models import build_model
from benchmarks.peers.row import Points, Row, Speed
from benchmarks.peers.subject import Subject
from edgekd.errors import ModelError
from edgekd.preprocess import Preprocess

LABELS = np.array([0, 1, 0, 1])
LOGITS = np.array([[2, 1], [1, 2], [2, 1], [2, 1]], np.float32)  # three of four are right


def adds(path: Path, offset: list[float]) -> Path:
    """A file that adds ``offset`` to the two numbers it reads."""
    one = [helper.make_node("Add", ["input", "offset"], ["output"])]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("input", "output")
    ]
    constant = helper.make_tensor("offset", TensorProto.FLOAT, [2], offset)
    graph = helper.make_graph(one, "adds", values[:1], values[1:], [constant])
    path.parent.mkdir(exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_losses_are_paired_and_edgekd_is_compared_with_each_peer(tmp_path: Path) -> None:
    np.save(tmp_path / "comparison.npy", LOGITS)
    subject = Subject("net", "net", "none", tmp_path, Preprocess(height=1, width=2), LOGITS, LABELS)
    assert subject.labels is not None
    rows = []
    for peer, offset in (("edgekd", [0.0, 0.0]), ("other", [0.0, 5.0])):  # the other answers 1 everywhere
        file = adds(tmp_path / peer / "model.onnx", offset)
        rows.append(judge(Row(model="net", peer=peer, title=peer), file, subject, pattern=None, worker=None))
    own, other = beside_edgekd(rows, subject)
    assert (own.status, own.accuracy, own.loss) == ("ok", 0.75, Points(value=0.0, se=0.0))
    assert own.edgekd_gain is None
    assert other.accuracy == 0.5 and other.loss == other.edgekd_gain
    assert other.loss is not None and other.loss.value == 25.0
    # Differences of 100, 0, 100 and -100 points: their deviation over the root of four.
    assert other.loss.se == pytest.approx(np.std([100, 0, 100, -100], ddof=1) / 2)


def test_without_labels_nothing_is_said_of_accuracy(tmp_path: Path) -> None:
    np.save(tmp_path / "comparison.npy", LOGITS)
    subject = Subject("net", "net", "none", tmp_path, Preprocess(height=1, width=2), LOGITS)
    file = adds(tmp_path / "edgekd" / "model.onnx", [0.0, 0.0])
    row = judge(Row(model="net", peer="edgekd", title="edgekd"), file, subject, pattern=None, worker=None)
    assert (row.status, row.accuracy, row.loss) == ("ok", None, None)
    assert beside_edgekd([row], subject) == [row]
    assert markdown_accuracy([{"model": "net"}], [row]) == ""


def test_without_labels_fp32_s_answers_are_the_right_ones(tmp_path: Path) -> None:
    np.save(tmp_path / "comparison.npy", LOGITS)
    subject = Subject("net", "net", "none", tmp_path, Preprocess(height=1, width=2), LOGITS)
    rows = [
        judge(Row(model="net", peer=peer, title=peer), adds(tmp_path / peer / "model.onnx", offset), subject,
              pattern=None, worker=None)
        for peer, offset in (("edgekd", [0.0, 0.0]), ("other", [0.0, 5.0]))
    ]  # fmt: skip
    _, other = beside_edgekd(rows, subject)
    assert (other.accuracy, other.agreement) == (None, 0.25)
    assert other.edgekd_gain is not None and other.edgekd_gain.value == 75.0


def test_the_table_has_the_fastest_peer_and_the_one_that_loses_least() -> None:
    def row(peer: str, ms: float, loss: float, gain: float | None) -> Row:
        speed = None if gain is None else Speed(value=ms / 10, low=1.0, high=9.0)
        return Row(
            model="net", peer=peer, title=peer.title(), p50_ms=ms, accuracy=0.9, edgekd_speedup=speed,
            loss=Points(value=loss, se=0.1), edgekd_gain=None if gain is None else Points(value=gain, se=0.1),
        )  # fmt: skip

    rows = [row("edgekd", 10, 0.5, None), row("quick", 12, 2.0, 1.5), row("exact", 20, 0.2, -0.3)]
    text = markdown_accuracy([{"model": "net", "accuracy": 0.91}], rows)
    assert (
        "| net | 91.00 % | 0.50 ± 0.10 | Quick | 2.00 ± 0.10 | 1.50 ± 0.10 | Exact | 0.20 ± 0.10 | -0.30 ± 0.10 |"
    ) in text
    assert "by more than two of them: net." in text


def test_a_trained_net_is_made_from_its_file_and_its_samples_stay_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def part(name: trained.Part) -> trained.Labelled:
        value = {"train": 10, "validation": 20, "test": 30}[name]
        return trained.Labelled(np.full((6, 28, 28), value, np.uint8), np.arange(6))

    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path))
    monkeypatch.setattr(trained, "fashion", part)
    monkeypatch.setattr(trained, "STEPS", 2)
    monkeypatch.setattr(trained, "BATCH", 3)
    models = [
        build_model(
            "fashion:residual", open_photos(None), calibration=3, comparison=5, seed=0, held_out=held_out
        )
        for held_out in ("validation", "test")
    ]
    for model, value in zip(models, (20, 30), strict=True):
        assert model.comparison.shape == (5, 1, 28, 28) and model.calibration.shape == (3, 1, 28, 28)
        mean, std = model.preprocess.mean[0], model.preprocess.std[0]
        np.testing.assert_allclose(model.calibration, (10 / 255 - mean) / std, rtol=1e-5)
        np.testing.assert_allclose(model.comparison, (value / 255 - mean) / std, rtol=1e-5)
        assert model.labels is not None and model.labels.tolist() == [0, 1, 2, 3, 4]
        assert model.architecture.startswith("torch:") and model.architecture.endswith(
            "fashion_nets.py:student"
        )
    first, again = (model.module.state_dict() for model in models)  # the second is read from the cache
    assert all(torch.equal(first[key], again[key]) for key in first)
    with pytest.raises(ModelError, match=r"no such net.*residual"):
        trained.load_trained("residul", 0)
