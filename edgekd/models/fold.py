"""Fold batch norm into the convolution or linear layer before it, for good, in place.

Quantization-aware training starts from the folded network: the weights that are fake-quantized are then
the weights that ship, and no batch norm reaches the ONNX file. Pairs are found in the call graph, so
timm's ``BatchNormAct2d`` (which FX fusion leaves alone) folds like ``nn.BatchNorm2d``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from edgekd.models.calls import record_calls


def fold_batch_norms(module: nn.Module, example: Tensor) -> list[str]:
    """Fold every batch norm whose only input is a convolution or linear layer that nothing else reads.

    A weight under a mask parametrization is folded in its original tensor: the fold scales whole output
    channels, so the mask stays true.

    Args:
        module: changed in place; the function it computes in eval mode stays the same.
        example: one batch, as :func:`record_calls` takes it.

    Returns:
        The names of the folded batch-norm modules, in forward order.
    """
    graph = record_calls(module, example)
    modules = dict(module.named_modules())
    folded: list[str] = []
    for call in graph.calls:
        if call.op != "batch_norm":
            continue
        norm = modules.get(call.site.module)
        producer = graph.producer(call.inputs[0])
        if not isinstance(norm, _BatchNorm) or producer is None or graph.sole_consumer(producer) is not call:
            continue
        layer = modules.get(producer.site.module)
        if not isinstance(layer, (nn.Conv2d, nn.Linear)) or call.site.module in folded:
            continue
        _fold(layer, norm)
        _replace(module, call.site.module, _what_remains(norm))
        folded.append(call.site.module)
    return folded


@torch.no_grad()
def _fold(layer: nn.Conv2d | nn.Linear, norm: _BatchNorm) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    shift = -norm.running_mean * scale
    if norm.affine:
        scale, shift = scale * norm.weight, shift * norm.weight + norm.bias
    if parametrize.is_parametrized(layer, "weight"):
        weight = layer.parametrizations["weight"].original
    else:
        weight = layer.weight
    weight.mul_(scale.reshape(-1, *[1] * (weight.ndim - 1)))
    if layer.bias is None:
        layer.bias = nn.Parameter(shift.clone())
    else:
        layer.bias.mul_(scale).add_(shift)


def _what_remains(norm: _BatchNorm) -> nn.Module:
    """timm's norm layers carry a dropout and an activation that must stay."""
    kept = [child for child in norm.children() if not isinstance(child, nn.Identity)]
    if not kept:
        return nn.Identity()
    return kept[0] if len(kept) == 1 else nn.Sequential(*kept)


def _replace(root: nn.Module, path: str, replacement: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    replacement.train(root.training)
    setattr(root.get_submodule(parent), name, replacement)
