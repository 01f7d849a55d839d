"""The models that ``--models`` may name, each with its weights and its samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from benchmarks.peers import lite, trained
from benchmarks.peers.images import Photos, crops
from edgekd.errors import ModelError, fault, nearest
from edgekd.models.torchvision_shim import ensure_torchvision_ops
from edgekd.preprocess import Preprocess


@dataclass(frozen=True)
class Model:
    """Attributes:
    architecture: what a peer builds it by: timm's name, or ``torch:FILE:FUNCTION``.
    weights: where they come from, for the reader of a result.
    calibration, comparison: float32 ``(samples, channels, height, width)``, preprocessed.
    labels: of the comparison samples, ``(samples,)``; None where there are none.
    """

    architecture: str
    weights: str
    module: nn.Module
    preprocess: Preprocess
    calibration: np.ndarray
    comparison: np.ndarray
    labels: np.ndarray | None = None


def build_model(
    name: str,
    photos: Photos,
    *,
    calibration: int,
    comparison: int,
    seed: int,
    held_out: trained.Part = "test",
) -> Model:
    """
    Args:
        name: a timm model (seeded random weights), ``lite0`` or ``lite2`` (ImageNet weights), ``fashion:`` and a
            net of :data:`benchmarks.peers.trained.FILES` (trained weights, labelled samples).
        held_out: of Fashion-MNIST, what is compared on.

    Raises:
        ModelError: no such model, or it takes no colour images.
        DataError: Fashion-MNIST cannot be had.
    """
    if trained.labelled(name):
        return _fashion(name.removeprefix(trained.PREFIX), calibration, comparison, seed, held_out)
    if name in lite.SIZES:
        architecture, preprocess = lite.architecture(name), lite.preprocess(name)
        weights, module = f"ImageNet ({lite.package(name)} {lite.VERSION})", lite.load_lite(name)
    else:
        architecture, weights = name, f"random, seed {seed}"
        module, preprocess = _random_timm(name, seed)
    samples = crops(photos.calibration, calibration, preprocess, seed)
    if name not in lite.SIZES:
        settle_batch_norms(module, torch.from_numpy(samples).split(16))
    others = crops(photos.comparison, comparison, preprocess, seed + 1)
    return Model(architecture, weights, module, preprocess, samples, others)


def _fashion(net: str, calibration: int, comparison: int, seed: int, held_out: trained.Part) -> Model:
    module = trained.load_trained(net, seed)
    file, function = trained.FILES[net]
    data = trained.fashion(held_out).first(comparison)
    return Model(
        architecture=f"torch:{file}:{function}",
        weights=f"trained on Fashion-MNIST, {trained.STEPS} steps, seed {seed}; compared on its {held_out} split",
        module=module,
        preprocess=trained.PREPROCESS,
        calibration=trained.fashion("train").first(calibration).inputs,
        comparison=data.inputs,
        labels=data.labels,
    )


def settle_batch_norms(module: nn.Module, batches: Iterable[torch.Tensor]) -> None:
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
