"""Errors of left-out rows: averaged over cells first, so that a lab with many rows of one kind counts once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rows import Row
from scipy.stats import spearmanr

Floats = NDArray[np.float64]


def cell_errors(rows: Sequence[Row], log: Floats) -> dict[tuple[str, ...], float]:
    """Median absolute error of each (board, runtime, source, family), as a share of the published latency."""
    found: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for row, value in zip(rows, log, strict=True):
        found[row.cell].append(abs(float(np.exp(value)) * 1000 / row.ms - 1))
    return {cell: float(np.median(errors)) for cell, errors in found.items()}


def summary(rows: Sequence[Row], log: Floats) -> dict[str, Any]:
    """Median and mean over the cells, and how many there are."""
    errors = list(cell_errors(rows, log).values())
    if not errors:
        return {"cells": 0, "rows": 0}
    return {
        "median_error": round(float(np.median(errors)), 4),
        "mean_error": round(float(np.mean(errors)), 4),
        "cells": len(errors),
        "rows": len(rows),
    }


def by(rows: Sequence[Row], log: Floats, key: Callable[[Row], str]) -> dict[str, Any]:
    """A :func:`summary` for each value of ``key``."""
    groups: dict[str, list[int]] = defaultdict(list)
    for position, row in enumerate(rows):
        groups[key(row)].append(position)
    return {
        name: summary([rows[at] for at in places], log[places]) for name, places in sorted(groups.items())
    }


def rank_by_board(rows: Sequence[Row], log: Floats, *, fewest: int = 8) -> dict[str, float]:
    """Spearman's rank correlation of each board with enough rows."""
    groups: dict[str, list[int]] = defaultdict(list)
    for position, row in enumerate(rows):
        groups[row.device].append(position)
    return {
        name: round(float(spearmanr(log[places], [rows[at].ms for at in places]).statistic), 4)
        for name, places in sorted(groups.items())
        if len(places) >= fewest
    }


def coverage(rows: Sequence[Row], log: Floats, low: Floats, high: Floats) -> float:
    """Share of cells' rows inside their range, each cell counted as one."""
    cells: dict[tuple[str, ...], list[bool]] = defaultdict(list)
    for row, value, below, above in zip(rows, log, low, high, strict=True):
        off = np.log(row.ms / 1000) - value
        cells[row.cell].append(bool(below <= off <= above))
    return round(float(np.mean([np.mean(inside) for inside in cells.values()])), 4)
