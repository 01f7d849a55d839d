"""How wrong the estimates are on boards and models that the fit did not see; writes the figures and their plots.

    .venv/bin/python benchmarks/latency/validate.py [cpu] [gpu]

Boards, models, families of models, or boards and families left out, all inside ``published.csv``; the same for
two baselines; how often the 80 % range held rows whose board or family it was not calibrated on.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import json
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
from architecture_table import read_architectures
from baselines import flops_over_peak, nearest_scaled
from cases import network_of
from coverage import cross_coverage
from fit import SEED, fit
from folds import without
from judge import Floats, by, rank_by_board, summary
from plots import write_plots
from rows import Row

_ROOT = Path(__file__).parents[2]
_RESULT = _ROOT / "benchmarks" / "results" / "latency_estimate.json"
# What users can name; other runtimes only help the fit.
PUBLIC = ("onnxruntime", "ncnn", "tflite-unstated", "tflite-ruy", "tflite-xnnpack", "tensorrt")


# Several boards (or models) are left out of one fit at a time: a fit each would take hours to say the same.
FOLDS = 10


def _board(row: Row) -> str:
    return row.board


def _model(row: Row) -> str:
    return row.model


def _family(row: Row) -> str:
    return row.family


def _by_runtime(rows: Sequence[Row], log: Floats) -> dict[str, Any]:
    return {"all": summary(rows, log)} | by(rows, log, lambda row: row.runtime.name)


def _judged(rows: Sequence[Row], log: Floats) -> dict[str, Any]:
    return {
        "all": summary(rows, log),
        "by_runtime": by(rows, log, lambda row: row.runtime.name),
        "by_precision": by(rows, log, lambda row: f"{row.runtime.name}|{row.precision}"),
        "by_board": by(rows, log, lambda row: row.device),
        "by_family": by(rows, log, _family),
        "spearman_by_board": rank_by_board(rows, log),
    }


def main() -> None:
    networks = read_architectures()
    result: dict[str, Any] = {}
    if _RESULT.exists():
        result = json.loads(_RESULT.read_text(encoding="utf-8"))
    result |= {"date": date.today().isoformat(), "seed": SEED}
    plotted: list[tuple[Row, float, float]] = []
    for kind in sys.argv[1:] or ("cpu", "gpu"):
        found = fit(kind, networks)
        rows, problem, residuals = found.rows, found.problem, found.residuals
        macs = np.asarray([float(network_of(row, networks).macs) for row in rows])
        places = [at for at, row in enumerate(rows) if row.runtime.name in PUBLIC]
        shown = [rows[at] for at in places]
        part: dict[str, Any] = {}
        logs = {
            "family_out": problem.target - residuals["known"],
            "both_out": problem.target - residuals["unknown"],
        }
        for name, key, offsets in (("board_out", _board, False), ("model_out", _model, True)):
            logs[name] = without(
                rows, problem, key, offsets=offsets, seed=SEED, folds=FOLDS,
                neighbours=found.neighbours,
            )  # fmt: skip
        splits = {"board_out": _board, "model_out": _model, "family_out": _family, "both_out": _board}
        for name, key in splits.items():
            part[name] = _judged(shown, logs[name][places]) | {
                "baselines": {
                    title: _by_runtime(shown, guess(rows, macs, key)[places])
                    for title, guess in (
                        ("flops_over_peak", flops_over_peak),
                        ("nearest_scaled", nearest_scaled),
                    )
                }
            }
        part["range"] = cross_coverage(rows, networks, residuals, places, SEED)
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
