"""The range of an activation, chosen from its histogram. Pure functions; all ranges contain 0.

Clipping a rare large value makes every other value's step smaller. How much to clip:

- ``min-max``: nothing;
- ``percentile``: a fixed share of the values on each side;
- ``mse``: what minimises the mean squared error (the search of Banner et al. 2019, arXiv 1810.05723, on the
  real values instead of a fitted distribution);
- ``entropy``: what keeps the distribution (S. Migacz, "8-bit inference with TensorRT", GTC 2017): the smallest
  Kullback-Leibler divergence of the rounded histogram from the clipped one. Deviations: the range may have
  two sides, and exact zeros are left out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekd.quant.histogram import Histogram
from edgekd.quant.schemes import QuantScheme

_SHARES = np.geomspace(1.0, 0.02, 72)
_EPSILON = 1e-12
Range = tuple[float, float]


def min_max(histogram: Histogram, scheme: QuantScheme) -> Range:
    """The smallest and the largest value."""
    return histogram.low, histogram.high


def percentile(histogram: Histogram, scheme: QuantScheme, share: float = 99.99) -> Range:
    """At most ``100 - share`` percent of the values lie above, and as many below."""
    if not histogram.width:
        return histogram.low, histogram.high
    bins = len(histogram.counts)
    counts = histogram.counts.copy()
    counts[bins // 2] += histogram.zeros
    edges = np.linspace(-histogram.width, histogram.width, bins + 1)
    cumulated = np.concatenate([[0.0], np.cumsum(counts)]) / histogram.total
    low, high = np.interp([1 - share / 100, share / 100], cumulated, edges)
    return max(min(float(low), 0.0), histogram.low), min(max(float(high), 0.0), histogram.high)


def mse(histogram: Histogram, scheme: QuantScheme) -> Range:
    """The smallest mean squared error, searched along both ends together and then along each."""

    def error(bounds: Range, centres: np.ndarray, counts: np.ndarray) -> float:
        integers, scale, zero_point = _integers(centres, bounds, scheme)
        return float((counts * (centres - (integers - zero_point) * scale) ** 2).sum())

    return _search(histogram, scheme, error)


def entropy(histogram: Histogram, scheme: QuantScheme) -> Range:
    """The smallest KL divergence of the rounded from the clipped distribution."""

    def divergence(bounds: Range, centres: np.ndarray, counts: np.ndarray) -> float:
        integers, _, _ = _integers(centres, bounds, scheme)
        inside = (centres >= bounds[0]) & (centres <= bounds[1])
        if not inside.any():
            return float("inf")
        levels = (integers - scheme.activation_min).astype(np.int64)
        size = scheme.activation_max - scheme.activation_min + 1
        mass = np.bincount(levels[inside], counts[inside], size)
        filled = np.bincount(levels[inside], minlength=size)
        approximated = mass[levels[inside]] / filled[levels[inside]]
        reference = counts[inside].copy()
        reference[0] += counts[centres < bounds[0]].sum()
        reference[-1] += counts[centres > bounds[1]].sum()
        p, q = reference / reference.sum(), approximated / approximated.sum()
        return float((p * np.log((p + _EPSILON) / (q + _EPSILON))).sum())

    return _search(histogram, scheme, divergence)


Estimator = Callable[[Histogram, QuantScheme], Range]
ESTIMATORS: dict[str, Estimator] = {
    "min-max": min_max,
    "percentile": percentile,
    "mse": mse,
    "entropy": entropy,
}


def _search(
    histogram: Histogram,
    scheme: QuantScheme,
    cost: Callable[[Range, np.ndarray, np.ndarray], float],
) -> Range:
    low, high = histogram.low, histogram.high
    centres, counts = histogram.filled()
    if not len(centres):
        return low, high

    def best(candidates: list[Range]) -> Range:
        return min(candidates, key=lambda bounds: cost(bounds, centres, counts))

    found = best([(low * share, high * share) for share in _SHARES])
    if low < 0 < high and not scheme.symmetric:
        around = np.linspace(0.5, 1.5, 21)
        found = best([(max(found[0] * share, low), found[1]) for share in around])
        found = best([(found[0], min(found[1] * share, high)) for share in around])
    return found


def _integers(values: np.ndarray, bounds: Range, scheme: QuantScheme) -> tuple[np.ndarray, float, int]:
    """As :meth:`edgekd.quant.fake_quant.ActivationQuantizer.numbers` has them."""
    qmin, qmax = scheme.activation_min, scheme.activation_max
    if scheme.symmetric:
        scale, zero_point = max(-bounds[0], bounds[1], _EPSILON) / qmax, 0
    else:
        scale = max(bounds[1] - bounds[0], _EPSILON) / (qmax - qmin)
        zero_point = min(max(round(qmin - bounds[0] / scale), qmin), qmax)
    return np.clip(np.rint(values / scale) + zero_point, qmin, qmax), scale, zero_point
