"""Parallel branches merged into one convolution, where a module offers it.

RepVGG (Ding et al., CVPR 2021, arXiv 2101.03697), MobileOne (Vasu et al., CVPR 2023, arXiv 2206.04040) and
their kin train with parallel branches and are deployed with one convolution. Integers and masks belong to
the deployed network: a sum of three quantized branches is slower and less exact than one convolution, and a
sum of three 2:4 weights is not 2:4. What a module offers is believed only if its output stays the same.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from edgekd.models.borrowed_weights import call_borrowed_layers
from edgekd.models.computed_weights import bake_computed_weights
from edgekd.models.evaluating import evaluating
from edgekd.models.layer_calls import another_input, removing
from edgekd.models.plain_attention import plain_attentions

METHODS = ("reparameterize", "switch_to_deploy", "fuse")
_MERGED = "_edgekd_merged"
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear, _BatchNorm)
_TOLERANCE = 1e-3  # of the largest output: sums in another order


def reparametrize(module: nn.Module, example: Tensor) -> list[str]:
    """:func:`merge_branches`, remembered: a saved model is rebuilt with its branches merged from the start.

    What counts as merged too: weights that were computed at every call and are stored
    (:func:`bake_computed_weights`), torch's packed attention taken apart (:func:`plain_attentions`), layers that are
    called where their weight was borrowed (:func:`call_borrowed_layers`).
    """
    merged = merge_branches(module, example)
    if merged:
        setattr(module, _MERGED, True)
    return merged


def is_reparametrized(module: nn.Module) -> bool:
    """:func:`reparametrize` has merged something in ``module``."""
    return bool(getattr(module, _MERGED, False))


def merge_branches(module: nn.Module, example: Tensor) -> list[str]:
    """Merge the branches of every submodule that can do it itself and then answers the same, in place.

    A submodule is left alone when it has fewer than three layers (a convolution and its batch norm are
    folded elsewhere), holds parametrizations, fails, or answers differently afterwards.

    Args:
        module: in eval mode while this runs; the function it computes stays the same.
        example: one batch that ``module`` takes.

    Returns:
        The names of the merged submodules; before them those of what else was rewritten.
    """
    merged: list[str] = []
    refused: set[str] = set()
    with evaluating(module):
        rewritten = [
            *plain_attentions(module, example), *call_borrowed_layers(module, example),
            *bake_computed_weights(module, example),
        ]  # fmt: skip
        while candidates := _outermost(module, {*merged, *refused}):
            seen = _answers(module, candidates, example)
            for path in candidates:
                replacement = _merge(module.get_submodule(path), *seen[path]) if path in seen else None
                if replacement is None:
                    refused.add(path)
                    continue
                module.set_submodule(path, replacement)
                merged.append(path)
    return rewritten + merged


def _outermost(module: nn.Module, done: set[str]) -> list[str]:
    """Paths of submodules that offer a merge and were not tried, those that hold no other of them above."""
    found: list[str] = []
    for path, child in module.named_modules():
        if not path or path in done or any(path.startswith(f"{other}.") for other in found):
            continue
        if _method(child) is not None and _size(child) >= 3 and not _parametrized(child):
            found.append(path)
    return found


def _method(module: nn.Module) -> Any:
    for name in METHODS:
        method = getattr(type(module), name, None)
        if callable(method):
            needed = list(inspect.signature(method).parameters.values())[1:]
            if all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in needed):
                return getattr(module, name)
    return None


def _size(module: nn.Module) -> int:
    return sum(isinstance(child, _LAYERS) for child in module.modules())


def _parametrized(module: nn.Module) -> bool:
    return any(parametrize.is_parametrized(child) for child in module.modules())


@torch.no_grad()
def _answers(module: nn.Module, paths: list[str], example: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """What each submodule reads and answers, of those that take and give one tensor and run once."""
    seen: dict[str, list[tuple[Any, Any]]] = {path: [] for path in paths}
    handles = [
        module.get_submodule(path).register_forward_hook(
            lambda child, given, kwargs, answer, path=path: seen[path].append(
                (None if kwargs else copy.deepcopy(given), answer)
            ),
            with_kwargs=True,
        )
        for path in paths
    ]
    with removing(handles):
        module(another_input(example) if example.is_floating_point() else example)
    return {
        path: (calls[0][0][0], calls[0][1].clone())
        for path, calls in seen.items()
        if len(calls) == 1
        and calls[0][0] is not None
        and len(calls[0][0]) == 1
        and isinstance(calls[0][0][0], Tensor)
        and isinstance(calls[0][1], Tensor)
    }


@torch.no_grad()
def _merge(module: nn.Module, given: Tensor, expected: Tensor) -> nn.Module | None:
    """``module`` with fewer layers and the same answer; None where it does not come to that."""
    other = copy.deepcopy(module)
    try:
        result = _method(other)()
        merged = result if isinstance(result, nn.Module) else other
        answer = merged.eval()(given.clone())
    except Exception:  # a module's own code: whatever it raises, the module stays as it is
        return None
    if not isinstance(answer, Tensor) or answer.shape != expected.shape or _size(merged) >= _size(module):
        return None
    error = (answer - expected).abs().max()
    if not error <= _TOLERANCE * expected.abs().max().clamp_min(1e-6):
        return None
    for parameter in merged.parameters():
        parameter.requires_grad_(True)
    return merged
