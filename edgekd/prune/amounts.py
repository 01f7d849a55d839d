"""How many units each set keeps, so that the network meets its target."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from edgekd.errors import PreconditionError, fault
from edgekd.prune.units import UnitGroup, remove_units

Scope = Literal["uniform", "global"]
Counts = dict[str, int]
"""Root of a set to the units that it keeps."""


def require_units_left(groups: Sequence[UnitGroup], ratio: float, where: str) -> None:
    """
    Raises:
        PreconditionError: a set of channels would lose all of them. Of attention heads one always stays.
    """
    channels = [group for group in groups if group.kind == "channels"]
    narrowest = min(channels, key=lambda group: group.units, default=None)
    if narrowest is not None and narrowest.units * (1 - ratio) < 1:
        most = int(100 * (1 - 1 / narrowest.units)) / 100
        raise PreconditionError(
            fault(where, f"would remove all {narrowest.units} channels of {narrowest.root}", got=ratio,
                  allowed=f"at most {most} for this model", fix="lower it, or exclude the layer")
        )  # fmt: skip


def counts_for(
    groups: Sequence[UnitGroup], amount: float, *, round_to: int, scope: Scope, scores: Mapping[str, Tensor]
) -> Counts:
    """What is kept where the share ``amount`` (0 to 1) of all units goes.

    Args:
        round_to: channels; what is kept is the nearest multiple, one multiple at least. A set that is smaller
            than that already, and attention heads, are rounded to whole units.
        scope: ``uniform``: the same share of every set; ``global``: the least of all scores go, wherever they
            are, and every set keeps a tenth.
    """
    if scope == "uniform":
        return {g.root: rounded(g, g.units * (1 - amount), round_to) for g in groups}
    everything = torch.cat([scores[group.root] for group in groups])
    place = min(int(amount * len(everything)), len(everything) - 1)
    bar = everything.sort().values[place]
    kept = {g.root: float((scores[g.root] >= bar).sum()) for g in groups}
    return {g.root: rounded(g, max(kept[g.root], g.units / 10), round_to) for g in groups}


def rounded(group: UnitGroup, wanted: float, round_to: int) -> int:
    """The nearest whole number of units whose channels are a multiple of ``round_to``."""
    step = 1 if group.kind == "heads" or group.width % round_to == 0 else max(1, round_to // group.width)
    if step >= group.units:
        step = (
            1 if group.units < 4 else min(4, group.units)
        )  # narrow already: by whatever kernels unroll least
    return min(group.units, max(step, step * round(wanted / step)))


def removal_of(
    groups: Sequence[UnitGroup], counts: Counts, scores: Mapping[str, Tensor]
) -> dict[str, list[int]]:
    """The units with the least scores, so many that ``counts`` stay."""
    removal = {}
    for group in groups:
        order = torch.argsort(scores[group.root], stable=True).tolist()
        removal[group.root] = sorted(order[: group.units - counts[group.root]])
    return removal


def between(groups: Sequence[UnitGroup], final: Counts, share: float, round_to: int) -> Counts:
    """Counts on the way to ``final``; ``share`` (0 to 1] of the way, from the dense network of ``groups``."""
    if share >= 1:
        return dict(final)
    return {
        g.root: max(final[g.root], rounded(g, g.units - share * (g.units - final[g.root]), round_to))
        for g in groups
    }


def search_counts(
    plan: Callable[[float], Counts],
    cost: Callable[[Counts], float],
    target: float,
    *,
    tolerance: float = 0.01,
    over: float = 0.05,
    tries: int = 8,
    most: float = 0.95,
) -> tuple[Counts, float]:
    """The counts whose cost is nearest to ``target``, and that cost.

    Amounts are bisected first; where rounding leaves a gap, sets change over one after the other from the
    plan that costs too much to the one that costs too little.

    Args:
        plan: an amount (0 to 1) to counts; more goes with a larger amount.
        cost: of counts.
        tolerance: stop when this near, relative to the target.
        over: what costs more than the target by this share is taken only if nothing else was seen.
        tries: candidates of the first search.

    Returns:
        The best seen. It may be far off: the caller decides.
    """
    seen: list[tuple[tuple[bool, float], Counts, float]] = []

    def tried(counts: Counts) -> float:
        found = next((known for _, old, known in seen if old == counts), None)
        found = cost(counts) if found is None else found
        seen.append(((found > target * (1 + over), abs(found - target)), counts, found))
        return found

    def near() -> bool:
        return min(seen, key=lambda entry: entry[0])[0][1] <= tolerance * target

    low, high = 0.0, most
    if tried(plan(high)) <= target:
        for _ in range(tries):
            if near():
                break
            amount = (low + high) / 2
            low, high = (amount, high) if tried(plan(amount)) > target else (low, amount)
        dear, cheap = plan(low), plan(high)
        changing = [root for root in dear if dear[root] != cheap[root]]
        first, last = 0, len(changing)
        while not near() and last - first > 1:
            middle = (first + last) // 2
            mixed = dear | {root: cheap[root] for root in changing[:middle]}
            first, last = (middle, last) if tried(mixed) > target else (first, middle)
    _, counts, found = min(seen, key=lambda entry: entry[0])
    return counts, found


def pruned_copy(
    module: nn.Module, groups: Sequence[UnitGroup], counts: Counts, scores: Mapping[str, Tensor]
) -> nn.Module:
    small = copy.deepcopy(module)
    remove_units(small, groups, removal_of(groups, counts, scores))
    return small
