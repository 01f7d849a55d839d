"""Statistics against values worked out by hand or by the cited definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgekd.profiles.statistics import (
    drift,
    modified_z_scores,
    outliers,
    ratio,
    relative_spread,
    summarise,
    two_levels,
)


def test_percentiles_of_1_to_100() -> None:
    summary = summarise(np.arange(1, 101)[::-1])
    assert summary.p50 == pytest.approx(50.5)
    assert summary.p90 == pytest.approx(90.1)
    assert summary.p99 == pytest.approx(99.01)
    assert (summary.mean, summary.count) == (50.5, 100)


def test_modified_z_score_by_hand() -> None:
    # Median 3, absolute deviations 2 1 0 1 97, MAD 1.
    scores = modified_z_scores([1, 2, 3, 4, 100])
    assert scores == pytest.approx([-1.349, -0.6745, 0.0, 0.6745, 0.6745 * 97])
    assert outliers([1, 2, 3, 4, 100]).tolist() == [False, False, False, False, True]


def test_mad_of_zero_uses_the_mean_deviation() -> None:
    # More than half equal: MAD 0. Mean absolute deviation 9/10 = 0.9.
    samples = [1.0] * 9 + [10.0]
    assert modified_z_scores(samples)[-1] == pytest.approx(9 / (1.253314 * 0.9))
    assert outliers(samples).tolist() == [False] * 9 + [True]


def test_equal_samples_have_no_outlier() -> None:
    assert modified_z_scores([2.0] * 8).tolist() == [0.0] * 8
    assert not outliers([2.0] * 8).any()


@pytest.mark.parametrize("samples", [[], [1.0, math.nan], [1.0, 0.0], [1.0, -2.0], [math.inf]])
def test_impossible_samples_are_refused(samples: list[float]) -> None:
    with pytest.raises(ValueError, match="samples"):
        summarise(samples)


def test_drift_needs_a_steady_direction() -> None:
    assert drift([1.0, 1.1, 1.2, 1.3, 1.4]) == pytest.approx(1.35 / 1.05 - 1)
    assert drift([1.4, 1.3, 1.2, 1.1, 1.0]) == pytest.approx(1.05 / 1.35 - 1)
    assert drift([1.0, 1.4, 1.1, 1.3, 1.2]) == 0.0
    assert drift([1.0, 1.1, 1.2]) == 0.0


def test_drift_of_many_rounds_may_waver() -> None:
    # Of 20 rounds the 1 % bound is S = 1 + 2.576 * 30.8 = 80.4 of 190 pairs: tau 0.42.
    generator = np.random.default_rng(3)
    quiet = 10 + generator.standard_normal(20)
    assert drift(quiet) == 0.0
    rising = quiet + 0.15 * np.arange(20)
    pairs = [np.sign(rising[j] - rising[i]) for i in range(20) for j in range(i + 1, 20)]
    assert 0.43 < sum(pairs) / 190 < 0.8
    assert drift(rising) == pytest.approx(rising[-6:].mean() / rising[:6].mean() - 1)


def test_spread_of_rounds() -> None:
    assert relative_spread([1.0, 2.0, 4.0]) == 1.5


def test_two_levels_are_found_and_named() -> None:
    generator = np.random.default_rng(0)
    slow, fast = 3.0 + 0.05 * generator.standard_normal(60), 1.0 + 0.05 * generator.standard_normal(140)
    levels = two_levels(generator.permutation(np.concatenate([slow, fast])))
    assert levels == pytest.approx((1.0, 3.0), abs=0.02)


@pytest.mark.parametrize("shape", ["normal", "uniform", "long tail", "few outliers", "close levels"])
def test_one_level_is_not_taken_for_two(shape: str) -> None:
    generator = np.random.default_rng(1)
    samples = {
        "normal": 5 + generator.standard_normal(300),
        "uniform": generator.uniform(1, 3, 300),
        "long tail": 1 + generator.exponential(0.5, 300),
        "few outliers": np.concatenate([np.full(290, 1.0), np.full(10, 5.0)]),
        "close levels": np.concatenate([np.full(150, 1.0), np.full(150, 1.05)]),
    }[shape]
    assert two_levels(samples) is None


def test_ratio_is_the_median_of_rounds_with_the_sign_test_interval() -> None:
    slow = [[2.0], [2.2], [1.8], [2.1], [1.9]]
    fast = [[1.0]] * 5
    result = ratio(slow, fast)
    assert (result.value, result.low, result.high) == (2.0, 1.8, 2.2)
    assert result.confidence == pytest.approx(1 - 2 / 2**5)
    assert result.decided


def test_more_rounds_narrow_the_interval_at_the_same_confidence() -> None:
    slow = [[float(value)] for value in range(1, 21)]
    result = ratio(slow, [[1.0]] * 20)
    # Binomial(20, 1/2): 5 or fewer on one side has probability 0.0207 (tables give ranks 6 and 15 at 95 %).
    assert (result.low, result.high) == (6.0, 15.0)
    assert result.confidence == pytest.approx(0.9586, abs=1e-4)


def test_what_slows_both_leaves_the_ratio_alone() -> None:
    heat = [1.0, 1.5, 3.0, 2.0, 1.2]
    result = ratio([[4.0 * h, 4.0 * h] for h in heat], [[2.0 * h] for h in heat])
    assert (result.value, result.low, result.high) == (2.0, 2.0, 2.0)


def test_one_round_claims_no_confidence() -> None:
    result = ratio([[3.0]], [[1.0]])
    assert (result.value, result.low, result.high, result.confidence) == (3.0, 3.0, 3.0, 0.0)


def test_equal_series_are_not_decided() -> None:
    assert not ratio([[1.0], [1.1], [0.9], [1.0], [1.0]], [[1.0]] * 5).decided


def test_series_of_different_length_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="as many rounds"):
        ratio([[1.0]], [[1.0], [1.0]])
