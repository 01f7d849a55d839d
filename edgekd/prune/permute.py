"""Reorder channels so that an N:M pattern keeps more magnitude, without changing what the model computes.

The order of the channels inside a network is arbitrary: permute what one layer writes, everything that is
indexed by those channels on the way, and what the next layers read, and the function is the same. The order
decides which weights share a group of ``m``, though, and so how much of them survives. See
:mod:`edgekd.prune.trial` for which channels move together and :mod:`edgekd.prune.swaps` for the search.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgekd.prune.channels import ChannelGroup, permute_group
from edgekd.prune.coupling import Untraceable
from edgekd.prune.eligibility import find_eligible
from edgekd.prune.pattern import Pattern, nm_mask
from edgekd.prune.report import PermutationReport, PermutedGroup
from edgekd.prune.saliency import magnitude
from edgekd.prune.swaps import kept_magnitude, search_order
from edgekd.prune.trial import find_channel_groups


def permute_channels(
    module: nn.Module,
    pattern: Pattern | str,
    example: Tensor,
    *,
    exclude: Iterable[str] = (),
    seed: int = 0,
) -> PermutationReport:
    """Permute the channels of ``module`` in place; the inputs and outputs of the model keep their order.

    Call it before :func:`edgekd.prune.apply.prune`, on weights without masks. A model whose *features* are to
    be compared with this one's (a dense teacher) must be copied from it afterwards: its logits do not change,
    the order of its features does.

    Args:
        module: the model.
        pattern: such as ``"2:4"``.
        example: an input batch, ``(B, C, H, W)``; only its shape and type matter for images.
        exclude: the layers that will stay dense, as for ``prune``.
        seed: of the search; the same seed gives the same order.

    Returns:
        Kept share before and after, per set of channels, and the sets that had to be left with the reason.
        ``reason`` starts with ``no permutation:`` where the model could not be traced.

    Raises:
        RecipeError, PreconditionError: as :func:`edgekd.prune.eligibility.find_eligible`.
    """
    pattern = Pattern.parse(pattern)
    layers = find_eligible(module, pattern, exclude=exclude).layers
    before = _kept_share(layers.values(), pattern)
    if any(parametrize.is_parametrized(part) for part in module.modules()):
        return PermutationReport(
            before, before, reason="no permutation: weights are masked or quantized already"
        )
    try:
        groups, skipped = find_channel_groups(module, example, layers)
    except Untraceable as error:
        return PermutationReport(before, before, reason=f"no permutation: {error}")
    if not groups and not skipped:
        why = "torch-pruning finds no channels that a maskable layer reads"
        return PermutationReport(before, before, reason=f"no permutation: {why}")
    permuted: list[PermutedGroup] = []
    for group in groups:
        outcome = _permute(module, layers, group, pattern, seed)
        if isinstance(outcome, PermutedGroup):
            permuted.append(outcome)
        else:
            skipped.append((group.root, outcome))
    return PermutationReport(before, _kept_share(layers.values(), pattern), permuted, skipped)


def _permute(
    module: nn.Module, layers: dict[str, nn.Module], group: ChannelGroup, pattern: Pattern, seed: int
) -> PermutedGroup | str:
    readers = [c for c in group.couplings if c.side == "in" and c.layer in layers]
    for reader in readers:
        if reader.repeat % pattern.m and reader.repeat != 1:
            return (
                f"the flatten before {reader.layer} mixes {reader.repeat} places of a channel into its groups"
            )
    names = [reader.layer for reader in readers if reader.repeat == 1]
    if not names:
        return "every group lies within one channel, so the order does not matter"
    columns = torch.cat([_columns(layers[name]) for name in names], dim=1)
    order = search_order(columns, pattern, seed=seed)
    identity = torch.arange(group.channels)
    total = float(columns.double().sum())
    if not torch.equal(order, identity):
        permute_group(module, group, order)
    kept = [kept_magnitude(columns, by, pattern) / total if total else 1.0 for by in (identity, order)]
    return PermutedGroup(group.root, names, group.channels, kept[0], kept[1])


def _columns(layer: nn.Module) -> Tensor:
    """``|W|`` as ``(inputs, outputs * kernel positions)``, float32 on the CPU."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return weight.detach().abs().float().cpu().movedim(1, 0).flatten(1)


def _kept_share(layers: Iterable[nn.Module], pattern: Pattern) -> float:
    kept = total = 0.0
    for layer in layers:
        weight = magnitude(layer.weight)  # type: ignore[arg-type]
        kept += float(weight.where(nm_mask(weight, weight, pattern), 0).sum(dtype=torch.float64))
        total += float(weight.sum(dtype=torch.float64))
    return kept / total if total else 1.0
