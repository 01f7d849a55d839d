"""Search an order of channels under which an N:M pattern keeps more of the magnitude.

Jeff Pool, Chong Yu. "Channel Permutations for N:M Sparsity", NeurIPS 2021: swap two channels of different
groups whenever that keeps more, until no swap helps; then perturb and go on ("escape local minima").

All swaps are scored at once. With A the sum of the n-1 largest of the other m-1 values of a group and B the
n-th largest of them, a channel x put into the free slot makes the group keep A + max(B, x), and
sum_r max(B_r, x_r) = (sum B + sum x + |B - x|_1) / 2 is one L1 distance matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgekd.prune.pattern import Pattern, nm_mask

_SWAPS_CONSIDERED = 4096
_BLOCK = 512  # channels that may swap with each other
_USUAL_SWEEPS = 12  # rows are sampled so that the work suffices for this many
_LEAST_ROWS = 128


def kept_magnitude(columns: Tensor, order: Tensor, pattern: Pattern) -> float:
    """Sum of the ``n`` largest of every ``m`` neighbours.

    Args:
        columns: ``(channels, rows)``, magnitudes; a row is one output (and kernel position) of a layer.
        order: ``(channels,)``, the channel at each place.
        pattern: such as ``Pattern(2, 4)``.
    """
    placed = columns[order][None]
    return float(placed.where(nm_mask(placed, placed, pattern), 0).sum(dtype=torch.float64))


def search_order(
    columns: Tensor, pattern: Pattern, *, seed: int = 0, work: float = 2e9, max_sweeps: int = 60
) -> Tensor:
    """An order of channels that keeps at least as much as the present one, the same for the same arguments.

    Bounded by counting and not by a clock: of many rows the search sees a sample, and more than 512 channels
    are dealt into blocks that swap among themselves. The result is judged on all rows.

    Args:
        columns: ``(channels, rows)``, magnitudes; ``channels`` is a multiple of ``pattern.m``.
        pattern: such as ``Pattern(2, 4)``.
        seed: of the samples and of the perturbations.
        work: bound on ``sweeps * channels * block * rows``, which is what the search costs.
        max_sweeps: bound on the sweeps of a small set of channels.

    Returns:
        int64 ``(channels,)``; the identity where nothing better was found.
    """
    generator = torch.Generator().manual_seed(seed)
    channels, rows = columns.shape
    groups = channels // pattern.m
    blocks = torch.randperm(groups, generator=generator).tensor_split(-(-channels // _BLOCK))
    cost_of_row = channels * max(len(block) for block in blocks) * pattern.m
    seen = min(rows, max(_LEAST_ROWS, int(work / (_USUAL_SWEEPS * cost_of_row))))
    sweeps = int(min(max_sweeps, max(_USUAL_SWEEPS // 2, work // (cost_of_row * seen))))
    columns = columns.detach().float().cpu()
    sample = columns
    if seen < rows:
        sample = columns[:, torch.randperm(rows, generator=generator)[:seen].sort().values]
    identity = torch.arange(channels)
    found = identity.clone()
    for block in blocks:
        if len(block) > 1:
            slots = (block.sort().values[:, None] * pattern.m + torch.arange(pattern.m)).flatten()
            found[slots] = slots[_descend(sample[slots], pattern, sweeps, generator)]
    if kept_magnitude(columns, found, pattern) <= kept_magnitude(columns, identity, pattern):
        return identity
    return found


def _descend(columns: Tensor, pattern: Pattern, sweeps: int, generator: torch.Generator) -> Tensor:
    channels, m = columns.shape[0], pattern.m
    group_of = torch.arange(channels) // m
    later_group = group_of[:, None] < group_of[None, :]  # each pair of slots once, never within a group
    with_channel = torch.empty(channels, channels)  # [slot, channel]: what the slot's group would keep
    order = torch.arange(channels)
    scored = torch.full_like(order, -1)  # the order that `with_channel` was computed for
    best, best_kept = order.clone(), -1.0
    for _ in range(sweeps):
        stale = (order != scored).reshape(-1, m).any(dim=1).nonzero().flatten()
        slots = (stale[:, None] * m + torch.arange(m)).flatten()
        with_channel[slots] = _scores(columns, order, stale, pattern)
        scored = order.clone()
        placed = with_channel[:, order]  # [slot, slot]
        now = placed.diagonal()
        kept = float(now.double().sum()) / m
        if kept > best_kept:
            best, best_kept = order.clone(), kept
        gain = (placed + placed.T - now[:, None] - now[None, :]).where(later_group, now.new_tensor(0.0))
        swaps = _disjoint_swaps(gain, m, least=1e-6 * kept * m / channels)
        if not swaps:
            order = best.clone()
            swaps = _random_swaps(channels, m, generator)
        for first, second in swaps:
            order[[first, second]] = order[[second, first]]
    return best


def _scores(columns: Tensor, order: Tensor, groups: Tensor, pattern: Pattern) -> Tensor:
    """``(len(groups) * m, channels)``: what a group keeps with each channel in each of its slots."""
    n, m = pattern.n, pattern.m
    members = columns[order.reshape(-1, m)[groups]]  # (groups, m, rows)
    ranked = members.sort(dim=1, descending=True).values
    in_top = members >= ranked[:, n - 1 : n]
    certain = (ranked[:, :n].sum(dim=1, keepdim=True) - members).where(
        in_top, ranked[:, : n - 1].sum(dim=1, keepdim=True)
    )
    rival = ranked[:, n : n + 1].where(in_top, ranked[:, n - 1 : n])
    rival, certain = rival.flatten(0, 1), certain.flatten(0, 1).sum(dim=1)
    larger = rival.sum(dim=1)[:, None] + columns.sum(dim=1)[None, :] + torch.cdist(rival, columns, p=1.0)
    return certain[:, None] + larger / 2


def _disjoint_swaps(gain: Tensor, m: int, *, least: float) -> list[tuple[int, int]]:
    """The most gainful swaps, largest first, no two in one group, so that their gains add up."""
    channels = gain.shape[0]
    values, indices = gain.flatten().topk(min(_SWAPS_CONSIDERED, gain.numel()))
    touched: set[int] = set()
    swaps = []
    for value, index in zip(values.tolist(), indices.tolist(), strict=True):
        if value <= least:
            break
        first, second = divmod(index, channels)
        if not touched.intersection((first // m, second // m)):
            touched.update((first // m, second // m))
            swaps.append((first, second))
    return swaps


def _random_swaps(channels: int, m: int, generator: torch.Generator) -> list[tuple[int, int]]:
    """A perturbation: one swap for every sixteen groups, at least one."""
    groups = torch.randperm(channels // m, generator=generator)
    count = max(1, len(groups) // 16)
    slots = torch.randint(m, (2 * count,), generator=generator)
    places = (groups[: 2 * count] * m + slots).tolist()
    return list(zip(places[:count], places[count:], strict=True))
