"""Where there are labels: what a file's integers cost in top-1, edgekd beside its fastest and its closest peer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.peers.row import Points, Row
from benchmarks.peers.summary import versus

HEADINGS = ("model", "fp32 top-1", "edgekd loses", "fastest peer", "it loses", "edgekd is right more often by",
            "closest peer", "it loses", "edgekd is right more often by")  # fmt: skip


def markdown_accuracy(models: Sequence[Mapping[str, Any]], rows: Iterable[Row]) -> str:
    """The table and a sentence; empty where no model has labels.

    Closest is the peer that loses least top-1; the faster one where two lose as much.
    """
    own_accuracy = {model["model"]: model.get("accuracy") for model in models}
    labelled = [row for row in rows if row.loss is not None]
    table, behind = [], []
    for line in versus(labelled):
        peers = [row for row in labelled if row.model == line.own.model and row.edgekd_speedup is not None]
        closest = min(peers, key=lambda row: (row.loss.value if row.loss else 0.0, row.p50_ms or 0.0))
        if closest.edgekd_gain is not None and closest.edgekd_gain.value + 2 * closest.edgekd_gain.se < 0:
            behind.append(line.own.model)
        table.append(_line([
            line.own.model, f"{100 * own_accuracy[line.own.model]:.2f} %", _points(line.own.loss),
            line.fastest.title, _points(line.fastest.loss), _points(line.fastest.edgekd_gain),
            closest.title, _points(closest.loss), _points(closest.edgekd_gain),
        ]))  # fmt: skip
    if not table:
        return ""
    return "\n".join([
        "### Accuracy that integers cost, in points of top-1", "",
        _line(HEADINGS), _line(["---", "---:", "---:", "---", "---:", "---:", "---", "---:", "---:"]), *table, "",
        "Behind the sign ± the standard error of the mean difference, sample by sample. Behind the closest peer by "
        f"more than two of them: {', '.join(behind) or 'none'}.", "",
    ])  # fmt: skip


def _points(points: Points | None) -> str:
    return "–" if points is None else f"{points.value:.2f} ± {points.se:.2f}"


def _line(texts: Iterable[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"
