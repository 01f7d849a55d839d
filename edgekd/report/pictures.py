"""The accuracy-size-latency picture of a run: what each stage cost, and what the files buy on each device."""

from __future__ import annotations

import math

from edgekd.report.facts import device_name, files_of, is_label_free, main_latency, matching, score
from edgekd.report.format import compact, compact_bytes, milliseconds, percent
from edgekd.report.markup import Markup
from edgekd.report.scatter import Mark, scatter
from edgekd.report.schema import Report
from edgekd.report.schema_deployed import DeployFacts

_FLOAT32_BYTES = 4


def size_picture(report: Report) -> Markup | None:
    """Accuracy against bytes for the stages (their fp32 weights) and the deployed files."""
    label_free = is_label_free(report)
    marks: list[Mark] = []
    for stage in report.stages:
        value = score(stage.metrics, label_free=label_free)
        if value is not None and stage.params:
            role = "teacher" if stage.name == "teacher" else "stage"
            marks.append(Mark(_FLOAT32_BYTES * stage.params, value, stage.name, role, percent(value, 1)))
    way = [mark for mark in marks if mark.role == "stage"]
    deployed = _deployed(report, label_free=label_free)
    marks += deployed
    way += deployed[:1]
    if not marks:
        return None
    what = _score_name(report)
    return scatter(marks, f"{what} against size", what, "size, log scale", compact_bytes, way)


def _score_name(report: Report) -> str:
    if is_label_free(report):
        return "agreement with the teacher"
    several = any(stage.metrics.accuracy_name != "top-1" for stage in report.stages)
    return "micro F1" if several else "top-1 accuracy"


def _deployed(report: Report, *, label_free: bool) -> list[Mark]:
    """The files; those that nearly coincide are one dot."""
    groups: list[tuple[DeployFacts, float, list[str]]] = []
    for entry in report.deploy:
        value = score(entry.metrics, label_free=label_free)
        if value is None or not entry.size_bytes:
            continue
        for first, level, names in groups:
            if abs(level - value) < 0.001 and abs(first.size_bytes / entry.size_bytes - 1) < 0.03:
                names.append(device_name(entry))
                break
        else:
            groups.append((entry, value, [device_name(entry)]))
    found = []
    for entry, value, names in groups:
        name = (
            f"{len(names)} deployed files" if len(names) > 1 else "deployed" if len(groups) == 1 else names[0]
        )
        found.append(Mark(entry.size_bytes, value, name, "deployed", percent(value, 1), radius=6.5))
    return found


def latency_picture(report: Report, entry: DeployFacts) -> Markup | None:
    """Accuracy against p50 for a deployed file and its baselines; the area of a circle is the file's size."""
    own = main_latency(entry.latency)
    if own is None:
        return None
    label_free = is_label_free(report)
    files = files_of(report, entry)
    largest = max((file.size_bytes or 0 for file in files), default=0) or 1
    marks = []
    for file in files:
        row = own if file.role == "deployed" else matching(file.latency, own)
        value = score(file.metrics, label_free=label_free)
        if row is None or value is None:
            continue
        span = (row.low_ms, row.high_ms) if row.low_ms and row.high_ms else None
        radius = max(4.0, 20 * math.sqrt((file.size_bytes or 0) / largest))
        note = milliseconds(row.p50_ms, row.kind)
        marks.append(
            Mark(row.p50_ms, value, file.label, file.role, note, radius, span, row.kind != "measured")
        )
    if not marks:
        return None
    what = _score_name(report)
    unit = f"p50 in ms ({own.kind}), log scale"
    title = f"{what} against latency on {device_name(entry)}"
    return scatter(marks, title, what, unit, compact, ())
