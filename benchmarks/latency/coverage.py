"""How often a range holds what it was not calibrated on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from folds import deal
from intervals import intervals_of, kind_of
from judge import coverage
from numpy.typing import NDArray
from rows import Row

from edgekd.profiles.estimation.operators import Workload
from edgekd.profiles.estimation.ranges import bounds, interval_keys

_PARTS = 5


def cross_coverage(
    rows: Sequence[Row],
    networks: Mapping[tuple[str, str], Workload],
    residuals: Mapping[str, NDArray[np.float64]],
    places: Sequence[int],
    seed: int,
) -> dict[str, Any]:
    """Ranges from the residuals of some boards, counted on the others'.

    Args:
        residuals: log of published over predicted, of rows that the prediction's fit did not see.
        places: rows that count.
    """
    parts = deal([row.board for row in rows], seed, _PARTS)
    found: dict[str, Any] = {}
    for board, values in residuals.items():
        low, high = np.zeros(len(rows)), np.zeros(len(rows))
        for part in range(_PARTS):
            kept = [at for at in range(len(rows)) if parts[at] != part]
            chosen = intervals_of(
                [rows[at] for at in kept], networks, {name: each[kept] for name, each in residuals.items()}
            )
            for at in np.flatnonzero(parts == part):
                keys = interval_keys(
                    rows[at].runtime, known_board=board == "known", kind=kind_of(rows[at], networks)
                )
                low[at], high[at] = bounds(chosen, keys)
        for name in sorted({rows[at].runtime.name for at in places}):
            mine = [at for at in places if rows[at].runtime.name == name]
            log = np.asarray([np.log(rows[at].ms / 1000) - values[at] for at in mine])
            found[f"{board} board|{name}"] = coverage([rows[at] for at in mine], log, low[mine], high[mine])
        log = np.asarray([np.log(rows[at].ms / 1000) - values[at] for at in places])
        inside = coverage([rows[at] for at in places], log, low[list(places)], high[list(places)])
        found[f"{board} board"] = inside
        width = np.median(np.exp(high[list(places)] - low[list(places)]))
        found[f"{board} board: median of high over low"] = round(float(width), 3)
    return found
