"""Several runs side by side, with a warning for every reason why their numbers may not be compared."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekd.report.facts import accuracy_change, main_latency, speedup
from edgekd.report.format import (
    MISSING,
    byte_count,
    clean,
    duration,
    listing,
    milliseconds,
    percent,
    points,
    ratio,
)
from edgekd.report.layers import method_name, quantized_stage
from edgekd.report.load import load_report
from edgekd.report.schema import Report
from edgekd.report.schema_deployed import DeployFacts
from edgekd.report.tables import Column, Table


@dataclass(frozen=True)
class ComparedFile:
    """One deployed file of one run; a run that deployed nothing has one with ``device`` None.

    ``accuracy_change`` is a fraction: ``top1`` of the file minus the teacher's. With several labels a text both
    are of micro F1, as ``accuracy_name`` says.
    """

    run: str
    recipe: str
    device: str | None
    seconds: float
    method: str | None = None
    top1: float | None = None
    accuracy_change: float | None = None
    agreement: float | None = None
    size_bytes: int | None = None
    compressed_bytes: int | None = None
    p50_ms: float | None = None
    latency_kind: str | None = None
    threads: int | None = None
    speedup_vs_student_fp32: float | None = None
    speedup_vs_teacher: float | None = None
    parity: float | None = None
    violations: int | None = None
    integer_coverage: float | None = None
    accuracy_name: str | None = None


@dataclass(frozen=True)
class Comparison:
    files: Sequence[ComparedFile]
    warnings: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """What ``edgekd compare --json`` prints."""
        return {"schema": 1, "files": [asdict(file) for file in self.files], "warnings": list(self.warnings)}


def compare_runs(paths: Sequence[Path]) -> Comparison:
    """Load and compare run directories or ``report.json`` files, in the order given.

    Raises:
        UserInputError: one of them cannot be read.
    """
    return compare_reports(list(zip(_labels(paths), map(load_report, paths), strict=True)))


def compare_reports(runs: Sequence[tuple[str, Report]]) -> Comparison:
    """``runs`` are pairs of a label and a report."""
    files: list[ComparedFile] = []
    for label, report in runs:
        files += [_compared(label, report, entry) for entry in report.deploy] or [
            ComparedFile(label, report.recipe.name, None, report.seconds)
        ]
    return Comparison(files, _warnings(runs, files))


def comparison_table(comparison: Comparison) -> Table:
    """A row a file, a column a fact."""
    accuracies = {file.accuracy_name for file in comparison.files if file.accuracy_name is not None}
    accuracy = next(iter(accuracies)) if len(accuracies) == 1 else "accuracy" if accuracies else "top-1"
    cells: dict[str, Callable[[ComparedFile], str]] = {
        "run": lambda f: f.run,
        "device": lambda f: f.device or MISSING,
        "recipe": lambda f: f.recipe,
        "method": lambda f: f.method or MISSING,
        accuracy: lambda f: percent(f.top1),
        "points": lambda f: points(f.accuracy_change),
        "agreement": lambda f: percent(f.agreement),
        "size": lambda f: byte_count(f.size_bytes),
        "p50": lambda f: milliseconds(f.p50_ms, f.latency_kind or "measured"),
        "latency": lambda f: f.latency_kind or MISSING,
        "threads": lambda f: MISSING if f.threads is None else str(f.threads),
        "vs student": lambda f: ratio(f.speedup_vs_student_fp32),
        "vs teacher": lambda f: ratio(f.speedup_vs_teacher),
        "parity": lambda f: percent(f.parity),
        "violations": lambda f: MISSING if f.violations is None else f"{f.violations:,}",
        "integer": lambda f: percent(f.integer_coverage),
        "time": lambda f: duration(f.seconds),
    }
    kinds = {"run": "text", "device": "text", "recipe": "text", "method": "text", "latency": "tag"}
    columns = tuple(Column(name, kinds.get(name, "number")) for name in cells)
    rows = [tuple(clean(tell(file)) for tell in cells.values()) for file in comparison.files]
    return Table("Runs", columns, rows)


def _compared(label: str, report: Report, entry: DeployFacts) -> ComparedFile:
    latency = main_latency(entry.latency)
    return ComparedFile(
        run=label,
        recipe=report.recipe.name,
        device=entry.device,
        seconds=report.seconds,
        method=_method(report),
        top1=entry.metrics.accuracy,
        accuracy_name=entry.metrics.accuracy_name,
        accuracy_change=accuracy_change(report, entry),
        agreement=entry.metrics.agreement,
        size_bytes=entry.size_bytes,
        compressed_bytes=entry.compressed_bytes,
        p50_ms=latency.p50_ms if latency else None,
        latency_kind=latency.kind if latency else None,
        threads=latency.threads if latency else None,
        speedup_vs_student_fp32=speedup(entry, "student"),
        speedup_vs_teacher=speedup(entry, "teacher"),
        parity=entry.parity.agreement if entry.parity else None,
        violations=entry.sparsity.violations if entry.sparsity else None,
        integer_coverage=entry.quantization.coverage if entry.quantization else None,
    )


def _method(report: Report) -> str | None:
    stage = quantized_stage(report)
    return None if stage is None else method_name(stage.quantization)


def _warnings(runs: Sequence[tuple[str, Report]], files: Sequence[ComparedFile]) -> list[str]:
    found = [f"{label}: no file was deployed" for label, report in runs if not report.deploy]
    # What must be equal, how it is told, and which numbers are void where it is not.
    conditions: Sequence[tuple[str, str, Callable[[Report], str]]] = (
        ("test data", "accuracies", lambda r: r.data.fingerprint or f"{r.data.name}, {r.data.test} samples"),
        ("teachers", "agreements", lambda r: r.models.teacher or ""),
        ("processors", "latencies", lambda r: r.machine.cpu or ""),
        ("onnxruntime", "latencies", lambda r: r.versions.get("onnxruntime", "")),
    )
    for what, void, tell in conditions:
        if len({tell(report) for _, report in runs}) > 1:
            found.append(f"the runs differ in {what}: their {void} are not comparable")
    for device in dict.fromkeys(file.device for file in files if file.device is not None):
        rows = [file for file in files if file.device == device and file.p50_ms is not None]
        for what, told in (
            ("kind", {str(row.latency_kind) for row in rows}),
            ("threads", {str(row.threads) for row in rows}),
        ):
            if len(told) > 1:
                found.append(f"{clean(device)}: the latencies differ in {what} ({listing(sorted(told))})")
    return found


def _labels(paths: Sequence[Path]) -> list[str]:
    """The folder names; whole paths where those are not unique."""
    folders = [path.parent if path.suffix == ".json" else path for path in paths]
    names = [folder.resolve().name for folder in folders]
    unique = len(set(names)) == len(names)
    return names if unique else [os.fspath(folder) for folder in folders]
