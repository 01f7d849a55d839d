"""Statistics of latency samples. Pure functions: numbers in, numbers out; no clock, no files.

A *round* is the run of samples that one model gave before the next model had its turn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Samples = NDArray[np.float64]

# Iglewicz and Hoaglin, "How to Detect and Handle Outliers", ASQC Basic References in Quality Control,
# volume 16, 1993.
OUTLIER_SCORE = 3.5
_MAD_TO_SIGMA = 0.6745  # 0.75 quantile of the standard normal
_MEAN_DEVIATION_TO_SIGMA = 1.253314  # sqrt(pi / 2)
_TWO_SIDED_1_PERCENT = 2.575829  # quantile of the standard normal


@dataclass(frozen=True)
class Summary:
    """Percentiles and mean of all samples, in the unit of the samples."""

    p50: float
    p90: float
    p99: float
    mean: float
    count: int


def summarise(samples: ArrayLike) -> Summary:
    """Percentiles by linear interpolation between the two nearest samples (numpy's default)."""
    values = _checked(samples)
    p50, p90, p99 = (float(value) for value in np.percentile(values, [50, 90, 99]))
    return Summary(p50, p90, p99, float(values.mean()), len(values))


def modified_z_scores(samples: ArrayLike) -> Samples:
    """Distance of each sample ``(n,)`` from the median, in robust standard deviations.

    The median absolute deviation (MAD) sets the scale. It is 0 when more than half of the samples are equal,
    as with a coarse clock; then the mean absolute deviation takes its place, and when that is 0 too all
    samples are equal and every score is 0.
    """
    values = _checked(samples)
    distance = values - np.median(values)
    mad = float(np.median(np.abs(distance)))
    if mad > 0:
        return np.asarray(_MAD_TO_SIGMA * distance / mad)
    mean_deviation = float(np.mean(np.abs(distance)))
    if mean_deviation > 0:
        return np.asarray(distance / (_MEAN_DEVIATION_TO_SIGMA * mean_deviation))
    return np.zeros_like(values)


def outliers(samples: ArrayLike) -> NDArray[np.bool_]:
    """Which samples ``(n,)`` lie further than 3.5 robust standard deviations from the median."""
    return np.asarray(np.abs(modified_z_scores(samples)) > OUTLIER_SCORE)


def relative_spread(round_medians: ArrayLike) -> float:
    """``(max - min) / median`` of the rounds' medians: how far one round alone could mislead."""
    values = _checked(round_medians)
    return float((values.max() - values.min()) / np.median(values))


def drift(round_medians: ArrayLike) -> float:
    """Relative change over the rounds when they rise or fall beyond chance, else 0.

    Two tests of a trend, either of which is enough. Kendall's tau of medians against time is at least 0.8 in
    size: with 5 rounds that is at most one pair out of order, which happens by chance in 8 % of quiet
    measurements. Or, with many rounds, Mann and Kendall's test says so at 1 % (Mann, Econometrica 13, 1945).
    The change is the mean of the last third of the rounds over the mean of the first, minus 1; of two rounds
    at least. Fewer than 4 rounds say nothing.
    """
    values = _checked(round_medians)
    count = len(values)
    if count < 4:
        return 0.0
    signs = [np.sign(values[j] - values[i]) for i in range(count) for j in range(i + 1, count)]
    trend = abs(float(sum(signs)))
    deviation = math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    if trend / len(signs) < 0.8 and trend - 1 < _TWO_SIDED_1_PERCENT * deviation:
        return 0.0
    ends = max(2, count // 3)
    return float(values[-ends:].mean() / values[:ends].mean() - 1.0)


def two_levels(samples: ArrayLike) -> tuple[float, float] | None:
    """The two levels between which a bimodal measurement jumps, or None.

    The samples are split where the variance within the two parts is least (Otsu, IEEE Trans. SMC 9(1), 1979).
    They count as two levels when each part holds a tenth of the samples, the levels differ by 10 %, and
    Ashman's D (Ashman, Bird and Zepf, AJ 108, 1994) exceeds 4: splitting a normal distribution so gives 2.6,
    a uniform one 3.5.
    """
    values = np.sort(_checked(samples))
    count = len(values)
    margin = max(2, math.ceil(count / 10))
    if count < 2 * margin or count < 10:
        return None
    sizes = np.arange(1, count)
    totals = np.cumsum(values)[:-1]
    low_means, high_means = totals / sizes, (values.sum() - totals) / (count - sizes)
    between = sizes * (count - sizes) * (high_means - low_means) ** 2
    cut = int(np.argmax(between)) + 1
    if not margin <= cut <= count - margin:
        return None
    low, high = values[:cut], values[cut:]
    pooled = math.sqrt((low.var() + high.var()) / 2)
    apart = float(high.mean() - low.mean())
    if apart <= 0.1 * float(low.mean()) or apart <= 4 * pooled:
        return None
    return float(low.mean()), float(high.mean())


@dataclass(frozen=True)
class Ratio:
    """How many times longer one series takes than another, with an interval.

    Attributes:
        value: median over rounds of the rounds' ratios of medians.
        low, high: the interval.
        confidence: probability that the interval holds the true median ratio; 5 rounds reach 0.9375 at most.
        rounds: rounds that were compared.
    """

    value: float
    low: float
    high: float
    confidence: float
    rounds: int

    @property
    def decided(self) -> bool:
        """Whether the interval leaves out 1: one of the two is faster."""
        return not self.low <= 1.0 <= self.high

    def __str__(self) -> str:
        return f"{self.value:.2f}x ({self.low:.2f} to {self.high:.2f})"


def ratio(
    numerator: Sequence[ArrayLike], denominator: Sequence[ArrayLike], *, confidence: float = 0.95
) -> Ratio:
    """Compare two interleaved series, round by round.

    Round ``r`` of both ran next to each other, so what slowed the machine then slowed both, and their ratio
    stands. The interval is :func:`median_interval` of the rounds' ratios.

    Args:
        numerator, denominator: samples ``(n,)`` of each round; as many rounds in both.
    """
    if len(numerator) != len(denominator) or not numerator:
        raise ValueError(f"needs as many rounds in both series, got {len(numerator)} and {len(denominator)}")
    pairs = zip(numerator, denominator, strict=True)
    ratios = np.sort([float(np.median(_checked(a)) / np.median(_checked(b))) for a, b in pairs])
    low, high, coverage = median_interval(ratios, confidence=confidence)
    return Ratio(float(np.median(ratios)), low, high, coverage, len(ratios))


def median_interval(values: ArrayLike, *, confidence: float = 0.95) -> tuple[float, float, float]:
    """``(low, high, coverage)`` of the median of what the values ``(n,)`` were drawn from.

    Order statistics, which cover the median whatever the distribution (Conover, Practical Nonparametric
    Statistics, 3rd ed., section 3.2): the narrowest pair that reaches ``confidence``, or the whole range when
    the values are too few; six reach 0.97. Give it one value a round, not every sample: neighbours in time
    share what slowed them, and an interval that takes them for independent is too narrow.
    """
    ordered = np.sort(_checked(values))
    count = len(ordered)
    # Ranks k and n+1-k miss the median when fewer than k of n fair coins fall on one side.
    reached = [
        (1 - 2 * sum(math.comb(count, i) for i in range(k)) / 2**count, k) for k in range(1, count // 2 + 1)
    ]
    enough = [entry for entry in reached if entry[0] >= confidence]
    coverage, rank = enough[-1] if enough else (reached[0] if reached else (0.0, 1))
    return float(ordered[rank - 1]), float(ordered[count - rank]), coverage


def _checked(samples: ArrayLike) -> Samples:
    values = np.asarray(samples, dtype=np.float64).reshape(-1)
    if values.size == 0:
        raise ValueError("no samples")
    if not np.isfinite(values).all() or (values <= 0).any():
        raise ValueError("samples must be finite and above 0")
    return values
