"""Axes: where a value lies on the picture and which ticks a reader wants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """Maps ``low..high`` onto ``start..end`` (pixels; ``end < start`` for an upward axis)."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, 1e-300))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round values (1, 2, 2.5 or 5 times a power of ten) inside ``low..high``.

    >>> nice_ticks(0.9, 0.94, 4)
    [0.9, 0.91, 0.92, 0.93, 0.94]
    """
    if not high > low:
        return [low]
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((factor * power for factor in (1, 2, 2.5, 5) if factor * power >= rough * 0.999), 10 * power)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1-2-5 values inside ``low..high``; only powers of ten where those are more than seven."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [
            float(f"{factor}e{power}")
            for power in range(first, last + 1)
            for factor in factors
            if low * 0.999 <= factor * 10.0**power <= high * 1.001
        ]
        if len(ticks) <= 7:
            break
    return ticks


def log_range(values: Sequence[float]) -> tuple[float, float]:
    """A range with room for circles and labels on both sides; ``values`` are positive."""
    low, high = min(values), max(values)
    margin = max(1.5, (high / low) ** 0.2)
    return low / margin, high * margin


def score_range(values: Sequence[float]) -> tuple[float, float]:
    """The range of a score axis. One value far below the rest (an untrained student) does not squeeze it.

    What falls below the range is drawn at its lower edge. The upper end may exceed 1: circles need room.
    """
    ordered = sorted(values)
    high = ordered[-1]
    kept = ordered
    while len(kept) > 2 and kept[1] - kept[0] > 0.1 and kept[1] - kept[0] > 2 * (high - kept[1]):
        kept = kept[1:]
    span = max(high - kept[0], 0.01)
    low = kept[0] - (0.3 if len(kept) == len(ordered) else 0.5) * span
    return max(0.0, low), high + 0.3 * span
