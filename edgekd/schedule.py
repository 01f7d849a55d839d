"""What a training is set up with: processes, seeds, batch size, precision, optimizer, learning rate, weight average."""

from __future__ import annotations

import hashlib
import math
import random
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgekd.data.source import Dataset
from edgekd.errors import PreconditionError, fault
from edgekd.models.torchvision_shim import ensure_torchvision_ops
from edgekd.recipe_stages import TrainRecipe


def open_accelerator() -> Accelerator:
    """The processes and the device of this run, as it was launched.

    Without a GPU the CPU has to be asked for: else processes that ``torchrun`` started would each take
    themselves for the only one.
    """
    return Accelerator(cpu=not torch.accelerator.is_available())


def derive_seed(*parts: Any) -> int:
    """A 63-bit seed from anything printable; unlike ``hash()``, the same in every process."""
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def augment_seed(seed: int) -> int:
    """One augmentation stream for all stages of a run, so that they can share a teacher's stored answers."""
    return derive_seed(seed, "augment") % 2**32


def batch_size_for(recipe: TrainRecipe, data: Dataset, accelerator: Accelerator) -> int:
    """The recipe's batch size per process, or all there is where the data is smaller."""
    return min(recipe.batch_size, max(1, len(data.train) // accelerator.num_processes))


def require_batch(model: nn.Module, batch_size: int, stage: str) -> None:
    """
    Raises:
        PreconditionError: one sample a batch, and batch norms that take statistics over it.
    """
    if batch_size == 1 and any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise PreconditionError(
            fault(f"{stage}.batch_size", "a batch of 1 gives batch norm no statistics", got=batch_size,
                  allowed="2 or more", fix="raise it, or use more training samples")
        )  # fmt: skip


def autocast_dtype(recipe: TrainRecipe, device: torch.device) -> torch.dtype | None:
    """bf16 where asked for, or by itself on a GPU that has it: on a CPU bf16 measured slower than fp32."""
    wanted = recipe.precision
    if wanted == "bf16" or (wanted == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()):
        return torch.bfloat16
    return None


def learning_rate(recipe: TrainRecipe, step: int, steps_per_epoch: int) -> float:
    """Linear warm-up, then a cosine to ``min_lr_ratio * lr`` at the last step."""
    total = recipe.epochs * steps_per_epoch
    warmup = min(round(recipe.warmup_epochs * steps_per_epoch), total - 1)
    if step < warmup:
        return recipe.lr * (step + 1) / (warmup + 1)
    share = (step - warmup) / max(1, total - 1 - warmup)
    low = recipe.lr * recipe.min_lr_ratio
    return low + (recipe.lr - low) * 0.5 * (1 + math.cos(math.pi * share))


def build_optimizer(model: nn.Module, recipe: TrainRecipe) -> torch.optim.Optimizer:
    ensure_torchvision_ops()
    from timm.optim import param_groups_weight_decay

    groups = param_groups_weight_decay(model, recipe.weight_decay)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
    return torch.optim.AdamW(groups, lr=recipe.lr, fused=True)


def build_ema(model: nn.Module, recipe: TrainRecipe) -> Any:
    if recipe.ema_decay is None:
        return None
    ensure_torchvision_ops()
    from timm.utils import ModelEmaV3

    # Early in training the average follows closely, else it would drag the random start along.
    return ModelEmaV3(model, decay=recipe.ema_decay, use_warmup=True, foreach=False)


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
