"""One forward pass that proves a model takes the input it is about to be given."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from edgekd.errors import ModelError, fault
from edgekd.models.brief import brief
from edgekd.models.evaluating import evaluating
from edgekd.preprocess_text import AnyPreprocess, TextPreprocess

_BATCH = 2  # 1 would hide a model that mixes up batch and class axes


def require_no_norm_hooks(module: nn.Module, where: str) -> None:
    """Refuse the old ``weight_norm`` and ``spectral_norm``: what their hooks leave on a layer cannot be copied.

    Raises:
        ModelError: names the layer and what to write instead.
    """
    for name, layer in module.named_modules():
        for hook in layer._forward_pre_hooks.values():
            if isinstance(hook, (WeightNorm, SpectralNorm)):
                old = "weight_norm" if isinstance(hook, WeightNorm) else "spectral_norm"
                raise ModelError(
                    fault(f"{where}: {name}", f"torch.nn.utils.{old} computes a weight that cannot be copied",
                          fix=f"use torch.nn.utils.parametrizations.{old}, or remove_{old}() in your factory")
                )  # fmt: skip


def try_forward(
    module: nn.Module,
    preprocess: AnyPreprocess,
    where: str,
    *,
    size_fix: str = "set input.size to what it takes",
) -> int:
    """Two black images or two texts through ``module`` in eval mode; the module's mode is left as it was.

    Args:
        size_fix: what to do about a refused size.

    Returns:
        The number of classes: logits per sample.

    Raises:
        ModelError: the model refuses the size, or answers something else than finite ``(2, classes)`` logits.
    """
    if isinstance(preprocess, TextPreprocess):
        example = preprocess.example(_BATCH, preprocess.max_length)  # the longest it may meet
    else:
        example = preprocess.example(_BATCH)
    shape = example.shape
    size = "x".join(map(str, shape[1:])) + (" (channels x height x width)" if len(shape) == 4 else " tokens")
    black = "a black image" if len(shape) == 4 else "a text"
    try:
        with evaluating(module), torch.no_grad():
            logits = module(torch.from_numpy(example))
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            fault(
                where,
                f"the model refuses an input of {size}",
                got=brief(error),
                fix=size_fix,
            )
        ) from error
    if not isinstance(logits, Tensor):
        raise ModelError(
            fault(
                where,
                "the model must return one tensor of logits",
                got=type(logits).__name__,
                fix="return the logits alone from forward()",
            )
        )
    if logits.ndim != 2 or logits.shape[0] != _BATCH or logits.shape[1] < 2:
        raise ModelError(
            fault(
                where,
                f"the model's answer to {_BATCH} samples is not logits",
                got=tuple(logits.shape),
                allowed="(batch, classes) with at least 2 classes",
            )
        )
    if not torch.isfinite(logits).all():
        raise ModelError(
            fault(
                where,
                f"the model answers NaN or infinity to {black} of {size}",
                fix="check the weights, and whether input.size is large enough for the model",
            )
        )
    return logits.shape[1]
