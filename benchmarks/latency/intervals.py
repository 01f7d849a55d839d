"""What left-out rows were off by, as ranges; how many rows there are of each kind."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from cases import columns_of, network_of
from numpy.typing import NDArray
from rows import Row

from edgekd.profiles.estimation.network_kinds import network_kind
from edgekd.profiles.estimation.operators import Workload
from edgekd.profiles.estimation.ranges import evidence_key, interval_keys

# A range must hold 80 % of the truth. What is left out here is a small sample of what comes, of boards above all:
# calibrated on some boards and counted on others, ranges hold less than they were made for.
_COVERAGE = {"known": 0.84, "unknown": 0.88}
_COVERAGE_OF_FEW_BOARDS = {"known": 0.84, "unknown": 0.92}
_FEW_BOARDS = 12
_ENOUGH_CELLS = 12


def kind_of(row: Row, networks: Mapping[tuple[str, str], Workload]) -> str:
    return network_kind(columns_of(network_of(row, networks)))


def intervals_of(
    rows: Sequence[Row],
    networks: Mapping[tuple[str, str], Workload],
    residuals: Mapping[str, NDArray[np.float64]],
) -> dict[str, list[float]]:
    """Log of published over predicted: the two bounds that hold most rows, each cell of rows counted as one."""
    cells = Counter(row.cell for row in rows)
    few = len({row.board for row in rows}) < _FEW_BOARDS
    wanted = _COVERAGE_OF_FEW_BOARDS if few else _COVERAGE
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    counted: dict[str, set[object]] = defaultdict(set)
    for position, row in enumerate(rows):
        for board, values in residuals.items():
            for key in interval_keys(row.runtime, known_board=board == "known", kind=kind_of(row, networks)):
                found[key].append((float(values[position]), 1 / cells[row.cell]))
                counted[key].add(row.cell)
    return {
        key: _bounds(pairs, wanted[key.split("|")[1]])
        for key, pairs in sorted(found.items())
        if len(counted[key]) >= _ENOUGH_CELLS
    }


def evidence_of(rows: Sequence[Row], networks: Mapping[tuple[str, str], Workload]) -> dict[str, int]:
    """Rows by runtime, style of core, precision and kind of network."""
    found = Counter(
        evidence_key(row.runtime, row.style, row.precision, kind_of(row, networks)) for row in rows
    )
    return dict(sorted(found.items()))


def smallest_of(rows: Sequence[Row], networks: Mapping[tuple[str, str], Workload]) -> dict[str, int]:
    """Multiply-accumulates of the smallest network of each runtime."""
    found: dict[str, int] = {}
    for row in rows:
        name, macs = row.runtime.chain[0], network_of(row, networks).macs
        found[name] = min(macs, found.get(name, macs))
    return dict(sorted(found.items()))


def _bounds(pairs: Sequence[tuple[float, float]], coverage: float) -> list[float]:
    values, weights = (np.asarray(part) for part in zip(*pairs, strict=True))
    order = np.argsort(values)
    share = (np.cumsum(weights[order]) - weights[order] / 2) / weights.sum()
    tail = (1 - coverage) / 2
    low, high = np.interp([tail, 1 - tail], share, values[order])
    return [round(float(low), 4), round(float(high), 4)]
