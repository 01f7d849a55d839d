"""How a stage's model goes to the run directory and comes back.

``model.safetensors`` + ``model.json``: the plain baked weights, loadable anywhere. ``state.safetensors``:
the trained state with masks and ranges, from which the run goes on. ``metrics.json``: what was found.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from edgekd.artifact import atomic_path, write_json
from edgekd.errors import OutputError, fault
from edgekd.models.bake import bake_parametrizations
from edgekd.models.directory import save_model_dir
from edgekd.models.loaded import LoadedModel
from edgekd.quant.qat import QuantizedModel
from edgekd.quant.weight_blocks import weight_blocks
from edgekd.train import network

STATE_FILE = "state.safetensors"
METRICS_FILE = "metrics.json"


def baked(model: nn.Module) -> nn.Module:
    """A CPU copy of the network with masks and weight fake-quant written into plain weights."""
    plain = copy.deepcopy(network(model)).cpu().eval()
    bake_parametrizations(plain)
    return plain


def save_stage(
    folder: Path, model: nn.Module, metrics: dict[str, Any], *, student: LoadedModel, classes: Sequence[str]
) -> None:
    """Write a finished stage; ``metrics.json`` last."""
    save_model_dir(
        folder, baked(model), spec=student.architecture, classes=classes, preprocess=student.preprocess,
        folded=student.folded or isinstance(model, QuantizedModel) or bool(weight_blocks(model)),
    )  # fmt: skip
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    content = safetensors.torch.save(state)
    with atomic_path(folder / STATE_FILE) as temporary:
        temporary.write_bytes(content)
    write_json(folder / METRICS_FILE, metrics)


def load_state(folder: Path, model: nn.Module) -> None:
    """Fill ``model``, whose structure has been rebuilt, from ``state.safetensors``."""
    path = folder / STATE_FILE
    try:
        state = safetensors.torch.load(path.read_bytes())
        model.load_state_dict(state)
    except (OSError, safetensors.SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise OutputError(
            fault(str(path), f"cannot be resumed from: {reason}", fix="start again in another --out")
        ) from None


def read_metrics(folder: Path) -> dict[str, Any]:
    path = folder / METRICS_FILE
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise OutputError(fault(str(path), "cannot be read", fix="start again in another --out")) from None
    return facts


def load_logits(path: Path) -> torch.Tensor:
    """Logits that :func:`save_logits` wrote."""
    return safetensors.torch.load(path.read_bytes())["logits"]


def save_logits(path: Path, logits: Any) -> None:
    content = safetensors.torch.save({"logits": torch.as_tensor(logits)})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
