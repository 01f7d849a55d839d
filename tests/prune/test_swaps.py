"""The search against brute force."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from edgekd.prune import swaps
from edgekd.prune.pattern import Pattern
from edgekd.prune.swaps import kept_magnitude, search_order


def columns_of(channels: int, rows: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(channels, rows, generator=generator) * torch.rand(channels, 1, generator=generator)


def test_kept_magnitude_golden() -> None:
    columns = torch.tensor(
        [[4.0, 1.0], [3.0, 1.0], [2.0, 5.0], [1.0, 6.0], [0.0, 1.0], [0.0, 1.0], [7.0, 1.0], [8.0, 2.0]]
    )
    identity = torch.arange(8)
    assert kept_magnitude(columns, identity, Pattern(2, 4)) == 4 + 3 + 8 + 7 + 5 + 6 + 2 + 1
    assert kept_magnitude(columns, identity, Pattern(1, 4)) == 4 + 8 + 6 + 2


@pytest.mark.parametrize("seed", range(4))
def test_eight_channels_reach_the_best_of_all_35_groupings(seed: int) -> None:
    columns, pattern = columns_of(8, 20, seed), Pattern(2, 4)
    best = max(
        kept_magnitude(columns, torch.tensor([*group, *sorted(set(range(8)) - set(group))]), pattern)
        for group in combinations(range(8), 4)
    )
    found = search_order(columns, pattern)
    assert sorted(found.tolist()) == list(range(8))
    assert kept_magnitude(columns, found, pattern) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize(
    "pattern", [Pattern(1, 4), Pattern(2, 4), Pattern(3, 4), Pattern(2, 8), Pattern(1, 2)]
)
def test_the_score_of_a_swap_is_what_the_group_then_keeps(pattern: Pattern) -> None:
    columns = columns_of(16, 12)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    groups = torch.tensor([1, 0])
    scores = swaps._scores(columns, order, groups, pattern)
    for row, slot in enumerate((groups[:, None] * pattern.m + torch.arange(pattern.m)).flatten().tolist()):
        first = slot // pattern.m * pattern.m
        for channel in range(16):
            changed = order.clone()
            changed[slot] = channel
            members = columns[changed[first : first + pattern.m]]
            expected = members.topk(pattern.n, dim=0).values.sum()
            assert torch.allclose(scores[row, channel], expected, rtol=1e-4)


def test_loud_channels_are_spread_over_the_groups() -> None:
    columns = torch.ones(16, 6) * 0.01
    columns[:8] = 1.0  # two groups of four loud channels: half of them would be lost
    found = search_order(columns, Pattern(2, 4))
    assert kept_magnitude(columns, found, Pattern(2, 4)) == pytest.approx(8 * 6)


def test_swaps_of_one_sweep_share_no_group() -> None:
    """Gains of swaps that touch one group do not add up: only the better of the two is taken."""
    gain = torch.zeros(6, 6)
    gain[0, 2], gain[1, 4], gain[3, 5] = 5.0, 4.0, 3.0  # groups of two: 0-1, 2-3, 4-5
    assert swaps._disjoint_swaps(gain, 2, least=0.0) == [(0, 2)]
    gain[0, 2] = 0.0
    assert swaps._disjoint_swaps(gain, 2, least=0.0) == [(1, 4)]
    assert swaps._disjoint_swaps(gain, 2, least=4.0) == []


def test_blocks_samples_and_a_small_budget_still_give_a_better_permutation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(swaps, "_BLOCK", 16)
    monkeypatch.setattr(swaps, "_LEAST_ROWS", 8)
    columns = columns_of(72, 300)
    found = search_order(columns, Pattern(2, 4), work=1e5)
    assert sorted(found.tolist()) == list(range(72))
    identity = torch.arange(72)
    assert kept_magnitude(columns, found, Pattern(2, 4)) > kept_magnitude(columns, identity, Pattern(2, 4))
    assert torch.equal(found, search_order(columns, Pattern(2, 4), work=1e5)), "the same every time"


def test_nothing_to_gain_is_the_identity() -> None:
    assert torch.equal(search_order(torch.ones(16, 5), Pattern(2, 4)), torch.arange(16))
    assert torch.equal(search_order(torch.rand(4, 5), Pattern(2, 4)), torch.arange(4))
