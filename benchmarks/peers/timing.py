"""All files of one model in one interleaved run, whatever runtime they are for."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.row import Row, Speed
from edgekd.profiles import measure
from edgekd.profiles.process import WorkerRunner
from edgekd.profiles.runner import Runner, RunSettings

FP32, REFERENCE = "fp32", "edgekd"
_OWN_WORKER = (sys.executable, "-P", "-m", "edgekd.profiles.worker")


@dataclass(frozen=True)
class Timed:
    """A file to measure. ``command`` starts the worker of another runtime than ONNX Runtime."""

    file: Path
    command: tuple[str, ...] | None = None


def time_rows(
    rows: list[Row],
    files: Mapping[str, Timed],
    fp32: Path,
    work: Path,
    *,
    threads: int,
    rounds: int,
    runs: int,
    prefix: Sequence[str] = (),
) -> list[Row]:
    """``rows`` (of one model) with their latencies; those without a file in ``files`` (by peer) stay as they are.

    Args:
        files: by peer; ``"NAME fp32"`` is the fp32 model in the runtime of peer NAME.
        work: folder for stand-ins.
        prefix: words before each measuring process's command, such as ``chrt -r 5`` on a busy machine.
    """
    if not files:
        return rows
    commands: dict[Path, tuple[Path, tuple[str, ...]]] = {}
    paths = {FP32: fp32}
    for label, timed in files.items():
        if timed.command is None:
            paths[label] = timed.file
        else:  # the profiler reads the head of an ONNX file: the source stands in for a file that is none
            stand_in = work / f"{label.replace(' ', '-')}.onnx"
            stand_in.unlink(missing_ok=True)
            stand_in.hardlink_to(fp32)
            paths[label] = stand_in
            commands[stand_in] = (timed.file, timed.command)

    def runner(path: Path, settings: RunSettings) -> Runner:
        if path in commands:
            file, command = commands[path]
            return WorkerRunner(file, settings, command=(*prefix, *command))
        return WorkerRunner(path, settings, command=(*prefix, *_OWN_WORKER))

    found = measure(
        paths, threads=threads, rounds=rounds, runs=runs, warmup=max(2, runs // 5), max_seconds_per_round=5.0,
        runner_factory=runner,
    )  # fmt: skip
    timed_rows = []
    for row in rows:
        if row.peer not in files:
            timed_rows.append(row)
            continue
        own = found.reports.get(f"{row.peer} {FP32}")
        reference = REFERENCE in files and row.peer != REFERENCE
        timed_rows.append(
            row.model_copy(
                update={
                    "p50_ms": found.reports[row.peer].p50_ms,
                    "fp32_p50_ms": found.reports[FP32].p50_ms,
                    "speedup": Speed.of(found.ratio(FP32, row.peer)),
                    "edgekd_speedup": Speed.of(found.ratio(row.peer, REFERENCE)) if reference else None,
                    "own_fp32_p50_ms": own.p50_ms if own else None,
                }
            )
        )
    return timed_rows
