"""Which layers can carry an N:M mask; every other convolution or linear layer is named with the reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.utils import parametrize

from edgekd.errors import PreconditionError, RecipeError, fault, nearest
from edgekd.prune.pattern import Pattern

# timm's weight-standardised convolutions subtract the mean inside forward(): zeros would not stay zero.
_STANDARDISED = {"StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame"}


@dataclass(frozen=True)
class Eligibility:
    """``layers``: name to module, in model order. ``skipped``: (name, reason)."""

    layers: dict[str, nn.Module]
    skipped: list[tuple[str, str]]


def find_eligible(module: nn.Module, pattern: Pattern, *, exclude: Iterable[str] = ()) -> Eligibility:
    """Sort all ``nn.Conv2d`` and ``nn.Linear`` (and their subclasses) into eligible and skipped.

    Args:
        module: the model.
        pattern: such as ``Pattern(2, 4)``.
        exclude: shell patterns (fnmatch) of layer names; naming a block excludes the layers inside it.

    Raises:
        RecipeError: a pattern in ``exclude`` matches no layer.
        PreconditionError: no layer is eligible.
    """
    candidates = {
        name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    }
    exclude = list(exclude)
    for glob in exclude:
        if not any(_matches(name, glob) for name in candidates):
            raise RecipeError(
                fault("prune.exclude", "matches no layer", got=glob, fix=nearest(glob, candidates))
            )
    layers: dict[str, nn.Module] = {}
    skipped: list[tuple[str, str]] = []
    owners: dict[int, str] = {}
    for name, layer in candidates.items():
        owner = owners.setdefault(id(_stored_weight(layer)), name)
        reason = _reason(layer, pattern)
        if reason is None and owner != name:
            reason = f"weight shared with {owner}"
        if reason is None:
            reason = next(
                (f"excluded by the recipe: {glob}" for glob in exclude if _matches(name, glob)), None
            )
        if reason is None:
            layers[name] = layer
        else:
            skipped.append((name, reason))
    if not layers:
        first = ", ".join(f"{name} ({reason})" for name, reason in skipped[:3])
        raise PreconditionError(
            fault(
                "prune",
                f"no layer is eligible for {pattern}",
                fix=first or "the model has no Conv2d and no Linear",
            )
        )
    return Eligibility(layers, skipped)


def _matches(name: str, glob: str) -> bool:
    return fnmatchcase(name, glob) or fnmatchcase(name, f"{glob}.*")


def _stored_weight(layer: nn.Module) -> object:
    if parametrize.is_parametrized(layer, "weight"):
        chain = layer.parametrizations["weight"]  # type: ignore[index]
        return getattr(chain, "original", layer)
    return layer.weight


def _reason(layer: nn.Conv2d | nn.Linear, pattern: Pattern) -> str | None:
    """Why ``layer`` cannot carry the pattern, or None."""
    if parametrize.is_parametrized(layer, "weight"):
        chain: parametrize.ParametrizationList = layer.parametrizations["weight"]  # type: ignore[index, assignment]
        if not chain.is_tensor:
            return "the weight is computed from several tensors (weight norm)"
    elif "weight" not in layer._parameters:
        return "the weight is not a parameter (it is computed by a hook)"
    if isinstance(layer, nn.Linear):
        if layer.in_features % pattern.m:
            return f"input features {layer.in_features} are not a multiple of {pattern.m}"
        return None
    if layer.groups > 1 and layer.groups == layer.in_channels:
        return "depthwise convolution"
    if _STANDARDISED.intersection(kind.__name__ for kind in type(layer).__mro__):
        return "the layer standardises its weight, which would fill the zeros"
    inputs = layer.in_channels // layer.groups
    if inputs % pattern.m:
        per_group = " per group" if layer.groups > 1 else ""
        return f"input channels{per_group} {inputs} are not a multiple of {pattern.m}"
    return None
