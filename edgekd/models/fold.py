"""Fold batch norm into the convolution or linear layer before it, for good, in place.

Quantization-aware training starts from the folded network: the weights that are fake-quantized are then
the weights that ship, and no batch norm reaches the ONNX file. Pairs are found in the call graph, so
timm's ``BatchNormAct2d`` (which FX fusion leaves alone) folds like ``nn.BatchNorm2d``.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from edgekd.models.calls import Call, CallGraph, record_calls
from edgekd.models.reparametrize import merge_branches


def fold_batch_norms(module: nn.Module, example: Tensor) -> list[str]:
    """Fold every batch norm into the convolution or linear layer whose output it alone reads.

    Parallel branches are merged first, and standardised weights stored
    (:func:`edgekd.models.reparametrize.merge_branches`).
    A batch norm without such a layer (before the convolution, after an add) becomes a depthwise 1x1
    convolution, so that it too runs in integers. A weight under a mask parametrization is folded in its
    original tensor: the fold scales whole output channels, so the mask stays true. Left as they are: layers
    whose weight is shared, runs twice or is computed from what they read.

    Args:
        module: changed in place; the function it computes in eval mode stays the same.
        example: one batch, as :func:`record_calls` takes it.

    Returns:
        The names of the folded batch-norm modules, in forward order.
    """
    merge_branches(module, example)
    graph = record_calls(module, example)
    modules = dict(module.named_modules())
    uses = Counter(name for call in graph.calls for name in call.parameters)
    runs = Counter(call.site.module for call in graph.calls if call.op == "batch_norm")
    folded: list[str] = []
    for call in graph.calls:
        path = call.site.module
        norm = modules.get(path)
        if call.op != "batch_norm" or not isinstance(norm, _BatchNorm) or runs[path] > 1:
            continue
        if norm.running_mean is None:
            continue  # normalises by the batch's own statistics, also in eval mode
        producer = _producer(graph, call)
        layer = modules.get(producer.site.module) if producer is not None else None
        if (
            producer is not None
            and isinstance(layer, (nn.Conv2d, nn.Linear))
            and uses[f"{producer.site.module}.weight"] == 1
            and f"{producer.site.module}.weight" in producer.parameters
            and _fold(layer, norm)
        ):
            _replace(module, path, _what_remains(norm))
        elif len(call.shape) == 4:
            _replace(module, path, _what_remains(norm, _as_convolution(norm)))
        else:
            continue
        folded.append(path)
    return folded


def _producer(graph: CallGraph, norm: Call) -> Call | None:
    """The call whose output only ``norm`` reads; a linear layer's may be flattened over (batch, token)."""
    producer = graph.producer(norm.inputs[0])
    if producer is None or graph.sole_consumer(producer) is not norm:
        return None
    before = graph.producer(producer.inputs[0]) if producer.op in ("flatten", "reshape", "view") else None
    if (
        before is not None
        and before.op == "linear"
        and len(norm.shape) == 2
        and before.shape[-1] == norm.shape[-1]
        and graph.sole_consumer(before) is producer
    ):
        return before
    return producer


@torch.no_grad()
def _fold(layer: nn.Conv2d | nn.Linear, norm: _BatchNorm) -> bool:
    """False, with nothing changed, when a parametrization does not commute with scaling output channels."""
    scale, shift = _scale_and_shift(norm)
    column = scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
    if parametrize.is_parametrized(layer, "weight"):
        expected = layer.weight * column
        chain: parametrize.ParametrizationList = layer.parametrizations["weight"]  # type: ignore[index, assignment]
        weight = getattr(chain, "original", None)
        if weight is None:
            return False
        before = weight.clone()
        weight.mul_(column)
        if not torch.allclose(layer.weight, expected, rtol=1e-4, atol=1e-6):
            weight.copy_(before)
            return False
    else:
        layer.weight.mul_(column)
    if layer.bias is None:
        layer.bias = nn.Parameter(shift.clone())
    else:
        layer.bias.mul_(scale).add_(shift)
    return True


def _scale_and_shift(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Batch norm in eval mode is ``x * scale + shift``, both ``(channels,)``."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    shift = -norm.running_mean * scale
    if norm.affine:
        scale, shift = scale * norm.weight, shift * norm.weight + norm.bias
    return scale, shift


@torch.no_grad()
def _as_convolution(norm: _BatchNorm) -> nn.Conv2d:
    scale, shift = _scale_and_shift(norm)
    channels = len(scale)
    layer = nn.Conv2d(channels, channels, 1, groups=channels, device=scale.device, dtype=scale.dtype)
    layer.weight.copy_(scale.reshape(-1, 1, 1, 1))
    assert layer.bias is not None
    layer.bias.copy_(shift)
    return layer


def _what_remains(norm: _BatchNorm, *first: nn.Module) -> nn.Module:
    """timm's norm layers carry a dropout and an activation that must stay; ``first`` comes before them."""
    kept = [*first, *(child for child in norm.children() if not isinstance(child, nn.Identity))]
    if not kept:
        return nn.Identity()
    return kept[0] if len(kept) == 1 else nn.Sequential(*kept)


def _replace(root: nn.Module, path: str, replacement: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    replacement.train(root.training)
    setattr(root.get_submodule(parent), name, replacement)
