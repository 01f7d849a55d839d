"""How long to measure: a fixed number of rounds, or until the median is known well enough.

The time budget is hyperfine's and Google Benchmark's (``--min-time``, ``--benchmark_min_time``), the least
counts are those of MLPerf's SingleStream scenario (so many queries *and* so long), and the interval that ends a
measurement is the one that its report shows: of the rounds' medians, since samples of one round share what
slowed them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgekd.profiles.cautions import Caution, CautionKind
from edgekd.profiles.statistics import median_interval

DEFAULT_SECONDS = 10.0
DEFAULT_TARGET = 0.02
MIN_ROUNDS = 6  # the fewest whose range holds the median with 95 %
MIN_SAMPLES = 100  # MLPerf inference, loadgen: min_query_count of SingleStream
_ROUNDS_IN_BUDGET = 20

Rounds = Mapping[str, Sequence[Sequence[float]]]


class Plan(Protocol):
    """Decides after each cycle, in which every model had one turn, whether there is another."""

    def goes_on(self, samples: Rounds, seconds: float) -> bool:
        """Whether another cycle follows. ``samples``: of each label and round; ``seconds``: since the first turn."""
        ...

    def progress(self, turns: int, models: int, seconds: float) -> tuple[int, int]:
        """Done and in all, in any unit."""
        ...

    def cautions(self, rounds_ms: Sequence[Sequence[float]]) -> list[Caution]:
        """What the plan could not keep for one model."""
        ...


@dataclass(frozen=True)
class FixedRounds:
    rounds: int

    def goes_on(self, samples: Rounds, seconds: float) -> bool:
        return any(len(rounds) < self.rounds for rounds in samples.values())

    def progress(self, turns: int, models: int, seconds: float) -> tuple[int, int]:
        return turns, self.rounds * models

    def cautions(self, rounds_ms: Sequence[Sequence[float]]) -> list[Caution]:
        return []


@dataclass(frozen=True)
class UntilKnown:
    """Attributes:
    seconds: that each model may take, all its rounds with their warm-ups together.
    target: half the width of the median's 95 % interval, as a fraction of the median.
    models: that share the time.
    """

    seconds: float
    target: float
    models: int

    @property
    def round_seconds(self) -> float:
        """Of one turn. Many short turns make a narrower interval than few long ones."""
        return self.seconds / _ROUNDS_IN_BUDGET

    def goes_on(self, samples: Rounds, seconds: float) -> bool:
        if not all(samples.values()):
            return True
        if seconds >= self.seconds * self.models:
            return False
        return any(not self._known(rounds) for rounds in samples.values())

    def progress(self, turns: int, models: int, seconds: float) -> tuple[int, int]:
        return round(1000 * min(1.0, seconds / (self.seconds * self.models))), 1000

    def cautions(self, rounds_ms: Sequence[Sequence[float]]) -> list[Caution]:
        half = half_width(rounds_ms)
        if len(rounds_ms) >= MIN_ROUNDS and half <= self.target:
            return []
        few = f"from {len(rounds_ms)} round{'s' * (len(rounds_ms) > 1)} alone"
        known = f"to {half:.1%}" if len(rounds_ms) >= MIN_ROUNDS else few
        text = f"the median is known {known} (asked for {self.target:.1%}) after {self.seconds:g} s: allow more seconds"
        return [Caution(CautionKind.TARGET_MISSED, text)]

    def _known(self, rounds_ms: Sequence[Sequence[float]]) -> bool:
        enough = len(rounds_ms) >= MIN_ROUNDS and sum(map(len, rounds_ms)) >= MIN_SAMPLES
        return enough and half_width(rounds_ms) <= self.target


def half_width(rounds_ms: Sequence[Sequence[float]]) -> float:
    """Half the width of the 95 % interval of the rounds' medians, as a fraction of their median."""
    medians = [float(np.median(samples)) for samples in rounds_ms]
    low, high, _ = median_interval(medians)
    return (high - low) / 2 / float(np.median(medians))
