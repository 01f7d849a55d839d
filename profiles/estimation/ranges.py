"""How far an estimate may be off: what left-out rows of its kind were off by, and whether there are such rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekd.profiles.estimation.parameters import Fitted
from edgekd.profiles.estimation.runtimes import RuntimeKind

# Rows of the same runtime, style of core, precision and kind of network that make an estimate validated.
_ENOUGH = 3
# Without such rows nobody knows; the range is at least this much wider.
_WIDER = 1.5
# A network of less than this share of the smallest published one; a range is then at least a factor of two wide on
# either side: six such networks, measured on an AVX512 Xeon, took 0.42 to 0.91 of what was estimated.
_FAR_BELOW = 0.5
_SMALL_RANGE = math.log(2)


@dataclass(frozen=True)
class Range:
    """Factors on the point.

    Attributes:
        rows: published ones near this case.
        smallest: multiply-accumulates of the smallest published network, where this one is far below it; else 0.
    """

    low: float
    high: float
    rows: int
    smallest: float = 0.0

    @property
    def near(self) -> bool:
        """Enough rows of such a runtime, core, precision and kind of network."""
        return self.rows >= _ENOUGH

    @property
    def validated(self) -> bool:
        return self.near and not self.smallest


def evidence_key(runtime: RuntimeKind, style: str, precision: str, kind: str) -> str:
    return f"{runtime.chain[0]}|{style}|{precision}|{kind}"


def interval_keys(runtime: RuntimeKind, *, known_board: bool, kind: str) -> tuple[str, ...]:
    """From the narrowest set of left-out rows to the widest."""
    board = "known" if known_board else "unknown"
    broad = "gpu" if runtime.gpu else "cpu"
    return (f"{runtime.chain[0]}|{board}|{kind}", f"{runtime.chain[0]}|{board}", f"{broad}|{board}")


def range_of(
    fit: Fitted,
    runtime: RuntimeKind,
    *,
    style: str,
    precision: str,
    kind: str,
    known_board: bool,
    macs: float,
) -> Range:
    """The range for one estimate of a network of ``macs`` multiply-accumulates."""
    low, high = bounds(fit.intervals, interval_keys(runtime, known_board=known_board, kind=kind))
    rows = fit.evidence.get(evidence_key(runtime, style, precision, kind), 0)
    least = fit.smallest.get(runtime.chain[0], 0.0)
    small = macs < _FAR_BELOW * least
    if rows < _ENOUGH or small:
        low, high = low * _WIDER, high * _WIDER
    if small:
        low, high = min(low, -_SMALL_RANGE), max(high, _SMALL_RANGE)
    return Range(math.exp(low), math.exp(high), rows, least if small else 0.0)


def bounds(intervals: Mapping[str, Sequence[float]], keys: Sequence[str]) -> tuple[float, float]:
    """Log factors from the narrowest set that has rows."""
    found = next((intervals[key] for key in keys if key in intervals), (-0.5, 0.5))
    return min(found[0], 0.0), max(found[1], 0.0)
