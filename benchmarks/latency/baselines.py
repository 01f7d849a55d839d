"""What a latency model has to beat: multiply-accumulates over a fitted peak, and the nearest model scaled by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from rows import Row

from edgekd.profiles.estimation.processors import crew_of, peak_per_cycle

Floats = NDArray[np.float64]
Key = Callable[[Row], str]


def peak_gops(row: Row) -> float:
    """Operations a second that a row's cores or GPU could do in its precision, in billions."""
    gpu = row.hardware.gpu
    if row.runtime.gpu and gpu is not None:
        return {"fp32": gpu.flop32, "fp16": gpu.flop16, "int8": gpu.op8 or gpu.flop16}[row.precision]
    crew = crew_of(row.hardware, row.threads or 1, static=row.runtime.static, clusters=row.clusters)
    return peak_per_cycle(crew.kind, row.precision) * crew.ghz * crew.share


def flops_over_peak(rows: Sequence[Row], macs: Floats, left_out: Key) -> Floats:
    """Log seconds: one efficiency for each runtime and precision, the median of the rows that are not left out."""
    ideal = np.asarray(
        [math.log(2e-9 * count / peak_gops(row)) for row, count in zip(rows, macs, strict=True)]
    )
    target = np.asarray([math.log(row.ms / 1000) for row in rows])
    held = np.asarray([left_out(row) for row in rows])
    group = np.asarray([f"{row.runtime.name}|{row.precision}" for row in rows])
    out = np.zeros(len(rows))
    for position in range(len(rows)):
        others = (held != held[position]) & (group == group[position])
        if not others.any():
            others = held != held[position]
        out[position] = ideal[position] + np.median((target - ideal)[others])
    return out


def nearest_scaled(rows: Sequence[Row], macs: Floats, left_out: Key) -> Floats:
    """Log seconds: of the most alike row that is not left out, times the ratio of multiply-accumulates over peaks.

    Alike: the same runtime and precision; then the same board, the same model, the fewest doublings between
    their multiply-accumulates and their peaks.
    """
    target = np.asarray([math.log(row.ms / 1000) for row in rows])
    held = np.asarray([left_out(row) for row in rows])
    peaks = np.log([peak_gops(row) for row in rows])
    counts = np.log(macs)
    runtime, precision, board, model = (
        np.unique(names, return_inverse=True)[1]
        for names in zip(
            *((row.runtime.name, row.precision, row.board, row.model) for row in rows), strict=True
        )
    )
    held = np.unique(held, return_inverse=True)[1]
    out = np.zeros(len(rows))
    for at in range(len(rows)):
        distance = abs(counts - counts[at]) + abs(peaks - peaks[at])
        distance += 2.0 * (board != board[at]) + 2.0 * (model != model[at])
        distance += 100.0 * (runtime != runtime[at]) + 10.0 * (precision != precision[at])
        distance[held == held[at]] = np.inf
        best = int(np.argmin(distance))
        out[at] = target[best] + counts[at] - counts[best] - peaks[at] + peaks[best]
    return out
