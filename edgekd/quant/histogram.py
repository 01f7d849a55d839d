"""What values a tensor takes, counted over many batches in one pass and little memory."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

BINS = 8192  # over [-width, width]: at least 2,048 of them on the side that is used, 8 for each of 255 steps
_SAMPLED = 2**17


class Histogram:
    """Counts of values; the range doubles when a value does not fit, so no earlier pass is needed.

    Attributes:
        low, high: the exact smallest and largest value, 0 included.
        width: the bins cover ``[-width, width]``; 0 as long as every value was 0.
        counts: float64 ``(BINS,)``, exact zeros left out: no choice of range moves them.
        zeros: how many values were exactly 0.
    """

    def __init__(self) -> None:
        self.low = self.high = self.width = 0.0
        self.zeros = 0.0
        self.counts = np.zeros(BINS)

    def add(self, x: Tensor) -> None:
        """Count ``x``; of a large tensor every k-th value, the extremes exactly.

        A tensor with NaN or infinity only marks ``low`` and ``high`` as not finite.
        """
        flat = x.detach().reshape(-1).float()
        if not flat.numel():
            return
        low, high = (float(value) for value in torch.aminmax(flat))
        if not (math.isfinite(low) and math.isfinite(high)):
            self.low = self.high = math.nan
            return
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._cover(max(-low, high))
        step = _stride(flat.numel())
        weight = step if step > 1 else 1
        flat = flat[::step]
        if self.width:
            found = torch.histc(flat, BINS, -self.width, self.width).double().cpu().numpy()
            zeros = float((flat == 0).sum())
            found[BINS // 2] -= zeros
            self.counts += weight * found
            self.zeros += weight * zeros
        else:
            self.zeros += weight * flat.numel()

    def _cover(self, largest: float) -> None:
        if self.width == 0:
            self.width = largest
        while largest > self.width:
            merged = np.zeros(BINS)
            merged[BINS // 4 : BINS - BINS // 4] = self.counts.reshape(-1, 2).sum(1)
            self.counts, self.width = merged, 2 * self.width

    @property
    def total(self) -> float:
        """How many values were counted, zeros included."""
        return float(self.counts.sum()) + self.zeros

    def filled(self) -> tuple[np.ndarray, np.ndarray]:
        """``(centres, counts)`` of the bins that hold something, in ascending order."""
        used = np.flatnonzero(self.counts > 0)
        return (used + 0.5) * (2 * self.width / BINS) - self.width, self.counts[used]

    def below(self, value: float) -> float:
        """How many non-zero values lie in ``[-value, value]``, spread evenly inside a bin."""
        if not self.width or value <= 0:
            return 0.0
        edges = np.linspace(-self.width, self.width, BINS + 1)
        cumulated = np.concatenate([[0.0], np.cumsum(self.counts)])
        low, high = np.interp([-value, value], edges, cumulated)
        return float(high - low)


def _stride(size: int) -> int:
    """Every how many values to look; without common factors with the usual sizes of channels and images."""
    step = max(1, size // _SAMPLED)
    while step > 1 and math.gcd(step, 2 * 3 * 5 * 7) > 1:
        step += 1
    return step
