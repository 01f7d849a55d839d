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
from datetime import date

import numpy as np
from architecture_table import find_architecture, read_architectures
from cases import cases_of, prior
from folds import left_out
from intervals import evidence_of, intervals_of
from rows import Row, read_rows
from solver import build, named, predict, solve

from edgekd.profiles.estimate.operators import Workload

SEED = 4
_OUT = Path(__file__).parents[2] / "profiles" / "estimate" / "parameters"
_SMALL = 1e-3


def usable_rows(networks: dict[tuple[str, str], Workload], *, gpu: bool) -> list[Row]:
    """Rows whose network is known operator by operator."""
    rows = []
    for row in read_rows():
        network = find_architecture(networks, row.model, row.shape, row.runtime.name)
        known = network is not None and bool(network.operators)
        if row.runtime.gpu == gpu and known and (row.hardware.gpu is not None or not gpu):
            rows.append(row)
    return rows


def main() -> None:
    networks = read_architectures()
    for kind in sys.argv[1:] or ("cpu", "gpu"):
        rows = usable_rows(networks, gpu=kind == "gpu")
        problem = build(cases_of(rows, networks), prior)
        theta = solve(problem)
        values = named(problem, theta)
        residuals = left_out(rows, problem, theta, SEED)
        error = np.abs(np.exp(predict(problem, theta) - problem.target) - 1)
        document = {
            "values": {
                name: round(value, 4)
                for name, value in sorted(values.items())
                if not name.startswith(("board|", "lab|")) and abs(value) >= _SMALL
            },
            "boards": {
                name.removeprefix("board|"): round(value, 4)
                for name, value in sorted(values.items())
                if name.startswith("board|")
            },
            "intervals": intervals_of(rows, networks, residuals),
            "evidence": evidence_of(rows, networks),
            "provenance": {
                "fitted": date.today().isoformat(),
                "script": "benchmarks/latency/fit.py",
                "seed": SEED,
                "rows": len(rows),
                "boards": len({row.device for row in rows}),
                "models": len({row.model for row in rows}),
                "median_error_of_fitted_rows": round(float(np.median(error)), 4),
            },
        }
        (_OUT / f"{kind}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        sys.stderr.write(f"{kind}: {document['provenance']}\n")


if __name__ == "__main__":
    main()
