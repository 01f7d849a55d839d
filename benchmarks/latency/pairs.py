"""How well estimates tell two files of one network apart: int8 against fp32, its model left out of the fit.

    .venv/bin/python benchmarks/latency/pairs.py

Pairs of published rows that share model, input, device, runtime, threads, cores, power mode and laboratory. The
choice of a board's file (:mod:`edgekd.variant_times`) rests on such a ratio.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import json
from collections import defaultdict
from collections.abc import Hashable

import numpy as np
from architecture_table import read_architectures
from fit import SEED, fit
from folds import without
from judge import Floats
from rows import Row
from validate import FOLDS, PUBLIC


def main() -> None:
    found = fit("cpu", read_architectures())
    log = without(
        found.rows, found.problem, lambda row: row.model, offsets=True, seed=SEED, folds=FOLDS,
        neighbours=found.neighbours,
    )  # fmt: skip
    by_runtime: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for int8, fp32 in pairs(found.rows):
        published = np.log(found.rows[int8].ms / found.rows[fp32].ms)
        by_runtime[found.rows[int8].runtime.name].append((published, log[int8] - log[fp32]))
    everything = [pair for each in by_runtime.values() for pair in each]
    result = {name: judged(np.array(each)) for name, each in {"all": everything, **by_runtime}.items()}
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


def pairs(rows: list[Row]) -> list[tuple[int, int]]:
    """Positions of the int8 row and of the fp32 row."""
    groups: dict[Hashable, dict[str, int]] = defaultdict(dict)
    for at, row in enumerate(rows):
        if row.runtime.name in PUBLIC:
            same = (row.device, row.runtime.name, row.model, row.shape, row.threads, str(row.clusters))
            groups[(*same, row.lab, row.power)].setdefault(row.precision, at)
    return [(each["int8"], each["fp32"]) for each in groups.values() if {"int8", "fp32"} <= each.keys()]


def judged(logs: Floats) -> dict[str, float]:
    """``logs`` ``(pairs, 2)``: of the published and of the estimated ratio of int8 to fp32."""
    published, estimated = logs.T
    wrong = np.abs(np.exp(estimated - published) - 1)
    return {
        "pairs": len(logs),
        "int8_slower_published": round(float((published > 0).mean()), 3),
        "median_error_of_the_ratio": round(float(np.median(wrong)), 3),
        "error_of_80_percent": round(float(np.quantile(wrong, 0.8)), 3),
        "same_faster_file": round(float(((published > 0) == (estimated > 0)).mean()), 3),
    }


if __name__ == "__main__":
    main()
