"""Fits the latency model on ``published.csv`` and writes its parameters into the package.

    .venv/bin/python benchmarks/latency/fit.py [cpu] [gpu]

Two fits, of processors and of GPUs, each of all runtimes together: a runtime, a style of cores and a core differ
from the common parameters only as far as rows say so. Deterministic; the seed deals models and boards to folds.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from architecture_table import Key, find_architecture, read_architectures
from cases import cases_of, prior
from folds import Floats, left_out
from intervals import evidence_of, intervals_of, smallest_of
from residuals import Neighbours, neighbours_of
from rows import Row, read_rows
from solver import Problem, build, named, predict, solve

from edgekd.profiles.estimation.alike import to_json
from edgekd.profiles.estimation.operators import Workload

SEED = 4
_OUT = Path(__file__).parents[2] / "profiles" / "estimation" / "parameters"
_SMALL = 1e-3


def usable_rows(networks: Mapping[Key, Workload], *, gpu: bool) -> list[Row]:
    """Rows whose network is known operator by operator."""
    rows = []
    for row in read_rows():
        network = find_architecture(networks, row.model, row.shape, row.runtime.name)
        known = network is not None and bool(network.operators)
        if row.runtime.gpu == gpu and known and (row.hardware.gpu is not None or not gpu):
            rows.append(row)
    return rows


@dataclass(frozen=True)
class Fit:
    """``residuals``: log of published over predicted of rows that a fit did not see; see ``folds.left_out``."""

    rows: Sequence[Row]
    problem: Problem
    theta: Floats
    residuals: Mapping[str, Floats]
    neighbours: Neighbours


def fit(kind: str, networks: Mapping[Key, Workload]) -> Fit:
    """``cpu`` or ``gpu``."""
    rows = usable_rows(networks, gpu=kind == "gpu")
    problem = build(cases_of(rows, networks), prior)
    theta = solve(problem)
    neighbours = neighbours_of(rows, networks)
    return Fit(rows, problem, theta, left_out(rows, problem, SEED, neighbours), neighbours)


def write(kind: str, found: Fit, networks: Mapping[Key, Workload]) -> None:
    """The parameters, ranges and provenance, into the package."""
    values = sorted(named(found.problem, found.theta).items())
    error = np.abs(np.exp(predict(found.problem, found.theta) - found.problem.target) - 1)
    provenance = {
        "fitted": date.today().isoformat(),
        "script": "benchmarks/latency/fit.py",
        "seed": SEED,
        "rows": len(found.rows),
        "boards": len({row.device for row in found.rows}),
        "models": len({row.model for row in found.rows}),
        "median_error_of_fitted_rows": round(float(np.median(error)), 4),
    }
    document = {
        "values": {
            name: round(value, 4)
            for name, value in values
            if not name.startswith(("board|", "lab|")) and abs(value) >= _SMALL
        },
        "boards": {
            name.removeprefix("board|"): round(value, 4)
            for name, value in values
            if name.startswith("board|")
        },
        "intervals": intervals_of(found.rows, networks, found.residuals),
        "evidence": evidence_of(found.rows, networks),
        "smallest": smallest_of(found.rows, networks),
        "provenance": provenance,
    }
    (_OUT / f"{kind}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    alike = found.neighbours.alike(found.problem.target - predict(found.problem, found.theta))
    text = json.dumps(to_json(alike), separators=(",", ":")).replace("],", "],\n")
    (_OUT / f"{kind}_alike.json").write_text(text + "\n", encoding="utf-8")
    sys.stderr.write(f"{kind}: {provenance}\n")


def main() -> None:
    networks = read_architectures()
    for kind in sys.argv[1:] or ("cpu", "gpu"):
        write(kind, fit(kind, networks), networks)


if __name__ == "__main__":
    main()
