"""What is compressed: a model with its weights and samples, written down once for edgekd and every peer.

Peers start from the file that ``torch.onnx`` writes, as their users do: edgekd's own fp32 file is laid out for
ONNX Runtime, which not every peer expects (OpenVINO refused a vision transformer in it). It is what all files are
measured against.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.peers.images import Photos
from benchmarks.peers.models import build_model
from benchmarks.peers.trained import Part
from edgekd.export.write import export_float
from edgekd.preprocess import Preprocess
from edgekd.profiles import open_session, run_batches

OPSET = 17
INPUT_NAME = "input"


@dataclass(frozen=True)
class Subject:
    """One model and its folder, in which ``fp32.onnx`` (edgekd's), ``plain.onnx`` (torch's), ``weights.safetensors``,
    ``calibration.npy`` and ``comparison.npy`` stand.

    Attributes:
        weights: where they come from, for the reader of a result.
        expected: fp32 logits ``(samples, classes)`` of the comparison samples.
        labels: theirs, ``(samples,)``; None where there are none.
    """

    name: str
    timm: str
    weights: str
    folder: Path
    preprocess: Preprocess
    expected: np.ndarray
    labels: np.ndarray | None = None

    @property
    def fp32(self) -> Path:
        return self.folder / "fp32.onnx"

    @property
    def comparison(self) -> Path:
        return self.folder / "comparison.npy"

    def facts(self) -> dict[str, Any]:
        """``distinct_top1`` says how much an agreement is worth: random weights may see one class everywhere."""
        right = None if self.labels is None else self.expected.argmax(1) == self.labels
        return {
            "model": self.name,
            "weights": self.weights,
            "fp32_bytes": self.fp32.stat().st_size,
            "distinct_top1": len(np.unique(self.expected.argmax(1))),
            "accuracy": None if right is None else float(right.mean()),
        }


def prepare_subject(
    name: str,
    folder: Path,
    photos: Photos,
    *,
    calibration: int,
    comparison: int,
    seed: int,
    held_out: Part = "test",
) -> Subject:
    """Build ``name`` and write down what everyone starts from; args as :func:`~benchmarks.peers.models.build_model`.

    Raises:
        ModelError, DataError: as it does.
        EdgeKDError: the model cannot be exported.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    model = build_model(
        name, photos, calibration=calibration, comparison=comparison, seed=seed, held_out=held_out
    )
    np.save(folder / "calibration.npy", model.calibration)
    np.save(folder / "comparison.npy", model.comparison)
    save_file({key: value.contiguous().clone() for key, value in model.module.state_dict().items()},
              folder / "weights.safetensors")  # fmt: skip
    fp32, example = folder / "fp32.onnx", torch.zeros(2, *model.preprocess.input_shape)
    export_plain(model.module, example, folder / "plain.onnx")
    export_float(model.module, example, fp32, opset=OPSET)
    expected = run_batches(open_session(fp32), model.comparison, batch=1)
    return Subject(name, model.architecture, model.weights, folder, model.preprocess, expected, model.labels)


def export_plain(module: nn.Module, example: Tensor, path: Path) -> None:
    """``torch.onnx``'s own file: its exporter folds batch norms and constants."""
    axes = {INPUT_NAME: {0: "batch"}, "output": {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter is deprecated, and tracing warns of every constant
        torch.onnx.export(
            module, (example,), str(path), dynamo=False, opset_version=OPSET, input_names=[INPUT_NAME],
            output_names=["output"], dynamic_axes=axes,
        )  # fmt: skip


def write_job(subject: Subject, folder: Path, settings: dict[str, Any]) -> None:
    """The job folder of one peer; the files of the subject are linked into it."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("plain.onnx", "weights.safetensors", "calibration.npy"):
        link = folder / file.replace("plain", "fp32")
        link.unlink(missing_ok=True)
        link.hardlink_to(subject.folder / file)
    facts = {
        "timm": subject.timm, "input_name": INPUT_NAME, "opset": OPSET, "settings": settings,
        "preprocess": subject.preprocess.model_dump(),
    }  # fmt: skip
    (folder / "job.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
