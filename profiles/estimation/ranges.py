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


@dataclass(frozen=True)
class Range:
    """Factors on the point. ``rows``: published ones near this case."""

    low: float
    high: float
    rows: int

    @property
    def validated(self) -> bool:
        return self.rows >= _ENOUGH


def evidence_key(runtime: RuntimeKind, style: str, precision: str, kind: str) -> str:
    return f"{runtime.chain[0]}|{style}|{precision}|{kind}"


def interval_keys(runtime: RuntimeKind, *, known_board: bool, kind: str) -> tuple[str, ...]:
    """From the narrowest set of left-out rows to the widest."""
    board = "known" if known_board else "unknown"
    broad = "gpu" if runtime.gpu else "cpu"
    return (f"{runtime.chain[0]}|{board}|{kind}", f"{runtime.chain[0]}|{board}", f"{broad}|{board}")


def range_of(
    fit: Fitted, runtime: RuntimeKind, *, style: str, precision: str, kind: str, known_board: bool
) -> Range:
    """The range for one estimate."""
    low, high = bounds(fit.intervals, interval_keys(runtime, known_board=known_board, kind=kind))
    rows = fit.evidence.get(evidence_key(runtime, style, precision, kind), 0)
    if rows < _ENOUGH:
        low, high = low * _WIDER, high * _WIDER
    return Range(math.exp(low), math.exp(high), rows)


def bounds(intervals: Mapping[str, Sequence[float]], keys: Sequence[str]) -> tuple[float, float]:
    """Log factors from the narrowest set that has rows."""
    found = next((intervals[key] for key in keys if key in intervals), (-0.5, 0.5))
    return min(found[0], 0.0), max(found[1], 0.0)
