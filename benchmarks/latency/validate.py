"""How wrong the estimates are on boards and models that the fit did not see; writes the figures and their plots.

    .venv/bin/python benchmarks/latency/validate.py

Leave-one-board-out, leave-one-model-out, leave-one-family-out, all inside ``published.csv``; the same for two
baselines; how often the 80 % range held rows whose board or family it was not calibrated on.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import json
from datetime import date
from typing import Any

import numpy as np
from architecture_table import read_architectures
from baselines import flops_over_peak, nearest_scaled
from cases import cases_of, network_of, prior
from coverage import cross_coverage
from fit import SEED, usable_rows
from folds import left_out, without
from judge import by, rank_by_board, summary
from plots import write_plots
from rows import Row
from solver import build, solve

_ROOT = Path(__file__).parents[2]
_RESULT = _ROOT / "benchmarks" / "results" / "latency_estimate.json"
# What users can name; other runtimes only help the fit.
_PUBLIC = ("onnxruntime", "ncnn", "tflite", "tflite-ruy", "tflite-xnnpack", "tensorrt")


def main() -> None:
    networks = read_architectures()
    result: dict[str, Any] = {"date": date.today().isoformat(), "seed": SEED}
    plotted: list[tuple[Row, float, float]] = []
    for kind in ("cpu", "gpu"):
        rows = usable_rows(networks, gpu=kind == "gpu")
        problem = build(cases_of(rows, networks), prior)
        theta = solve(problem)
        macs = np.asarray([float(network_of(row, networks).macs) for row in rows])
        places = [at for at, row in enumerate(rows) if row.runtime.name in _PUBLIC]
        shown = [rows[at] for at in places]
        part: dict[str, Any] = {}
        splits = {
            "board_out": (lambda row: row.board, False),
            "model_out": (lambda row: row.model, True),
            "family_out": (lambda row: row.family, True),
        }
        logs = {}
        for name, (key, offsets) in splits.items():
            logs[name] = without(rows, problem, theta, key, offsets=offsets)
            guesses = {"flops_over_peak": flops_over_peak, "nearest_scaled": nearest_scaled}
            part[name] = {
                "all": summary(shown, logs[name][places]),
                "by_runtime": by(shown, logs[name][places], lambda row: row.runtime.name),
                "by_precision": by(
                    shown, logs[name][places], lambda row: f"{row.runtime.name}|{row.precision}"
                ),
                "by_board": by(shown, logs[name][places], lambda row: row.device),
                "by_family": by(shown, logs[name][places], lambda row: row.family),
                "spearman_by_board": rank_by_board(shown, logs[name][places]),
                "baselines": {
                    title: by(shown, guess(rows, macs, key)[places], lambda row: row.runtime.name)
                    | {"all": summary(shown, guess(rows, macs, key)[places])}
                    for title, guess in guesses.items()
                },
            }
        part["range"] = cross_coverage(rows, networks, left_out(rows, problem, theta, SEED), places, SEED)
        result[kind] = part
        for at in places:
            plotted.append(
                (rows[at], float(np.exp(logs["model_out"][at])), float(np.exp(logs["board_out"][at])))
            )
        sys.stderr.write(
            f"{kind}: {json.dumps({name: part[name]['all'] for name in splits})} {part['range']}\n"
        )
    _RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    write_plots(plotted, _ROOT / "docs")


if __name__ == "__main__":
    main()
