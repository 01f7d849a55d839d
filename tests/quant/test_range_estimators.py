"""The four ways to choose a range, against values worked out another way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from edgekd.errors import RecipeError
from edgekd.quant.estimators import ESTIMATORS, entropy, min_max, mse, percentile
from edgekd.quant.histogram import Histogram
from edgekd.quant.ptq import set_ranges
from edgekd.quant.schemes import SCHEMES
from edgekd.quant.zero_share import zero_share

U8, S8 = SCHEMES["u8s8"], SCHEMES["s8s8"]


def counted(*tensors: torch.Tensor) -> Histogram:
    histogram = Histogram()
    for tensor in tensors:
        histogram.add(tensor)
    return histogram


def normal(count: int = 100_000) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0))


def error(x: torch.Tensor, low: float, high: float) -> float:
    scale = (high - low) / 255
    zero = round(-low / scale)
    return float(((((x / scale).round() + zero).clamp(0, 255) - zero) * scale - x).square().mean())


def test_a_histogram_grows_without_losing_a_value() -> None:
    x = normal()
    whole, parts = counted(x), counted(x[:10] / 50, x[10:1000], x[1000:])
    assert (parts.low, parts.high) == (whole.low, whole.high) == (x.min().item(), x.max().item())
    assert parts.total == whole.total == len(x)
    assert parts.below(1.0) == pytest.approx(int((x.abs() <= 1).sum()), rel=5e-3)


def test_exact_zeros_are_counted_apart() -> None:
    histogram = counted(torch.cat([normal(1000).relu(), torch.zeros(500)]))
    assert histogram.zeros == 500 + int((normal(1000) <= 0).sum())
    assert counted(torch.zeros(9)).zeros == 9 and counted(torch.zeros(9)).width == 0
    assert min_max(counted(torch.zeros(9)), U8) == mse(counted(torch.zeros(9)), U8) == (0.0, 0.0)


def test_a_value_that_is_not_finite_shows() -> None:
    assert math.isnan(counted(torch.tensor([1.0, math.inf])).high)
    assert math.isnan(counted(torch.tensor([1.0, math.nan])).low)


def test_percentiles_are_those_of_the_values() -> None:
    x = normal()
    low, high = percentile(counted(x), U8, 99.9)
    assert low == pytest.approx(np.percentile(x.numpy(), 0.1), abs=0.02)
    assert high == pytest.approx(np.percentile(x.numpy(), 99.9), abs=0.02)
    assert percentile(counted(x), U8, 100) == pytest.approx((x.min().item(), x.max().item()), abs=2e-3)
    low, high = percentile(counted(x.relu()), U8, 99.9)
    assert low == 0 and high == pytest.approx(np.percentile(x.relu().numpy(), 99.9), abs=0.02)


@pytest.mark.parametrize("outlier", [0.0, 12.0, 60.0])
def test_mse_finds_the_smallest_error_that_a_brute_search_finds(outlier: float) -> None:
    x = torch.cat([normal(50_000), torch.tensor([outlier])])
    found = error(x, *mse(counted(x), U8))
    brute = min(
        error(x, low, high)
        for low in np.linspace(-5, -1, 25)
        for high in (*np.linspace(1, 6, 25), *np.linspace(6, 60, 40))
    )
    assert found <= 1.03 * brute
    assert found <= error(x, *min_max(counted(x), U8))


def test_symmetric_integers_get_a_symmetric_search() -> None:
    x = torch.cat([normal(), torch.tensor([40.0])])

    def cost(extent: float) -> float:
        return float((((x / extent * 127).round().clamp(-128, 127)) * extent / 127 - x).square().mean())

    low, high = mse(counted(x), S8)
    extent = max(-low, high)
    assert extent < 30 and cost(extent) <= 1.03 * min(cost(each) for each in np.linspace(4, 40, 73))


def test_entropy_cuts_what_is_rare_and_keeps_what_is_not() -> None:
    low, high = entropy(counted(torch.cat([normal(), torch.tensor([40.0, -40.0])])), U8)
    assert 2.5 < high < 8 and -8 < low < -2.5
    flat = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    assert entropy(counted(flat), U8)[1] > 0.97


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_every_range_contains_zero_and_nothing_beyond_the_extremes(name: str) -> None:
    for x in (normal(5000), normal(5000).relu(), -normal(5000).relu(), normal(5000) + 9):
        low, high = ESTIMATORS[name](counted(x), U8)
        assert min(x.min().item(), 0) - 1e-6 <= low <= 0 <= high <= max(x.max().item(), 0) + 1e-6


def test_the_share_that_becomes_zero_is_counted_right() -> None:
    """CrossQuant's synthetic case: a few outlier channels make the step coarse for all others."""
    x = normal(64 * 1000).reshape(1000, 64)
    x[:, :3] *= 60
    scale = float(x.abs().max()) / 127
    exact = float(((x / scale).round() == 0).float().mean())
    assert zero_share(counted(x), scale) == pytest.approx(exact, abs=0.01) and exact > 0.2
    assert zero_share(counted(x[:, 3:]), float(x[:, 3:].abs().max()) / 127) < 0.03
    assert zero_share(counted(torch.zeros(4)), 1.0) == 0.0


def test_an_unknown_estimator_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean 'entropy'"):
        set_ranges(None, None, "entropi")  # type: ignore[arg-type]
