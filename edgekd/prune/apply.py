"""Put N:M masks on a model, find them again, check them, and take them off with the zeros left in place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from edgekd.errors import ModelError, PreconditionError, RecipeError, fault, nearest
from edgekd.prune.check import violations
from edgekd.prune.eligibility import find_eligible
from edgekd.prune.mask import NMMask, find_mask, place_mask
from edgekd.prune.pattern import Pattern, nm_mask
from edgekd.prune.report import PermutationReport, PruneReport
from edgekd.prune.saliency import collect_input_norms, magnitude, wanda
from edgekd.prune.sr_ste import SRSTEMask

MaskKind = Literal["fixed", "sr-ste"]
SaliencyKind = Literal["magnitude", "wanda"]


def prune(
    module: nn.Module,
    pattern: Pattern | str,
    *,
    saliency: SaliencyKind = "magnitude",
    calibration: Iterable[Tensor] | None = None,
    mask: MaskKind = "fixed",
    exclude: Iterable[str] = (),
    sr_ste_decay: float = 2e-4,
    permutation: PermutationReport | None = None,
) -> PruneReport:
    """Mask every eligible layer of ``module`` in place. A layer that has a mask already gets a new one.

    Args:
        module: the model; its parameters stay the same objects.
        pattern: such as ``"2:4"``.
        saliency: what decides which weights stay; see :mod:`edgekd.prune.saliency`.
        calibration: input batches ``(B, C, H, W)``, read by ``wanda`` alone.
        mask: ``"fixed"``, or ``"sr-ste"`` that follows the magnitudes during training.
        exclude: layer names (fnmatch) that stay dense.
        sr_ste_decay: lambda_W of SR-STE.
        permutation: the report of :func:`edgekd.prune.permute.permute_channels`, if it ran; it is passed on.

    Raises:
        RecipeError: an exclude pattern matches nothing; SR-STE together with ``wanda``.
        PreconditionError: no layer is eligible, ``wanda`` without batches, weights that are not finite.
    """
    pattern = Pattern.parse(pattern)
    if mask == "sr-ste" and saliency != "magnitude":
        raise RecipeError(
            fault("prune.saliency", "SR-STE goes by magnitude", got=saliency, fix="set mask: fixed")
        )
    found = find_eligible(module, pattern, exclude=exclude)
    layers, skipped = dict(found.layers), list(found.skipped)
    norms: dict[str, Tensor] = {}
    if saliency == "wanda":
        norms = collect_input_norms(module, layers, calibration if calibration is not None else ())
        if not norms:
            raise PreconditionError(fault("prune", "saliency wanda needs calibration batches, got none"))
        skipped += [(name, "not run by the calibration batches") for name in layers if name not in norms]
        layers = {name: layer for name, layer in layers.items() if name in norms}
    masks: dict[str, Tensor] = {}
    kept: dict[str, float] = {}
    total: dict[str, float] = {}
    for name, layer in layers.items():
        weight: Tensor = layer.weight.detach()  # type: ignore[operator]
        scores = magnitude(weight)
        if name in norms:
            scores = wanda(weight, norms[name], groups=getattr(layer, "groups", 1))
        if not torch.isfinite(scores).all():
            raise PreconditionError(fault(name, "the weights or the activations are not finite numbers"))
        masks[name] = nm_mask(weight, scores, pattern)
        kept[name] = float((weight.abs() * masks[name]).double().sum())
        total[name] = float(weight.abs().double().sum())
    for name, layer in layers.items():
        place_mask(layer, _build(mask, masks[name], pattern, sr_ste_decay), where=name)
    return PruneReport(
        pattern=str(pattern),
        saliency=saliency,
        mask=mask,
        layers=list(layers),
        layers_total=len(found.layers) + len(found.skipped),
        skipped=skipped,
        kept_magnitude=_share(sum(kept.values()), sum(total.values())),
        kept_magnitude_by_layer={name: _share(kept[name], total[name]) for name in layers},
        permutation=permutation,
    )


def attach(
    module: nn.Module,
    layer_names: Iterable[str],
    pattern: Pattern | str,
    mask: MaskKind = "fixed",
    *,
    sr_ste_decay: float = 2e-4,
) -> None:
    """Only register masks (all true), so that the ``state_dict`` of a pruned model can be loaded.

    Raises:
        ModelError: a name is not a layer of ``module``.
    """
    pattern = Pattern.parse(pattern)
    for name in layer_names:
        layer = _layer(module, name)
        every = torch.ones_like(layer.weight, dtype=torch.bool)
        place_mask(layer, _build(mask, every, pattern, sr_ste_decay), where=name)


def masked_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Name to layer, in model order, of the layers that carry a mask."""
    return {name: layer for name, layer in module.named_modules() if find_mask(layer) is not None}


def freeze_masks(module: nn.Module) -> list[str]:
    """Turn every SR-STE mask into the fixed mask of the current weights; the names of those layers."""
    frozen = []
    for name, layer in masked_layers(module).items():
        mask = find_mask(layer)
        if isinstance(mask, SRSTEMask):
            stored = layer.parametrizations["weight"].original  # type: ignore[index, union-attr]
            place_mask(layer, mask.freeze(stored), where=name)
            frozen.append(name)
    return frozen


def check_masks(
    module: nn.Module, pattern: Pattern | str, layer_names: Iterable[str] | None = None
) -> list[str]:
    """The layers whose *effective* weight (after every parametrization) breaks the pattern; empty is good.

    Args:
        module: the model, masked or baked.
        pattern: such as ``"2:4"``.
        layer_names: what to check, ``PruneReport.layers``; None means the layers that carry a mask now.

    Raises:
        PreconditionError: ``layer_names`` is None and no layer carries a mask, so there is nothing to check.
    """
    names = list(masked_layers(module)) if layer_names is None else list(layer_names)
    if not names:
        raise PreconditionError(fault("prune", "no layer carries a mask", fix="name the layers to check"))
    bad = []
    for name in names:
        layer = _layer(module, name)
        nonzero = (layer.weight.detach() != 0).cpu().numpy()
        if violations(nonzero, pattern, "linear" if isinstance(layer, nn.Linear) else "conv", where=name):
            bad.append(name)
    return bad


def _build(kind: MaskKind, mask: Tensor, pattern: Pattern, decay: float) -> NMMask:
    if kind == "fixed":
        return NMMask(mask)
    if kind == "sr-ste":
        return SRSTEMask(mask.shape, pattern, decay=decay).to(mask.device)
    raise RecipeError(fault("prune.mask", "unknown mask", got=kind, allowed="fixed, sr-ste"))


def _layer(module: nn.Module, name: str) -> nn.Conv2d | nn.Linear:
    layer = dict(module.named_modules()).get(name)
    if not isinstance(layer, nn.Conv2d | nn.Linear):
        known = [n for n, m in module.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        raise ModelError(fault(name, "not a Conv2d or Linear of this model", fix=nearest(name, known)))
    return layer


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 1.0
