"""One model in one process: ``python -m edgekd.profiles.worker``, one JSON object a line in and out.

Requests: ``{"do": "open", "path": ..., "settings": {...}}``, ``{"do": "round"}``, ``{"do": "finish"}``.
Answers: ``{"ok": ...}``, or ``{"error": {"type": ..., "message": ...}}``. The process ends when its
input does, so that it never outlives whoever started it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from edgekd.errors import EdgeKDError, ModelFileError, fault
from edgekd.profiles.runner import Finished, Opened, Runner, RunSettings
from edgekd.profiles.runtimes import RUNTIMES
from edgekd.profiles.runtimes.loaded import Loaded, reason
from edgekd.profiles.timing import timed_round, timed_streams


class InProcessRunner:
    """A :class:`~edgekd.profiles.runner.Runner` in this very process, for every runtime that Python can call."""

    def __init__(self, path: Path, settings: RunSettings) -> None:
        self.path = path
        self.settings = settings
        self._callers: list[Callable[[], object]] = []
        self._cpu_start = 0.0
        self._wait_start: float | None = None

    def open(self) -> Opened:
        settings = self.settings
        runtime = import_module(f"edgekd.profiles.runtimes.{RUNTIMES[settings.runtime].module}")
        version = runtime.version()
        base = memory_bytes("VmRSS")
        start = time.perf_counter()
        loaded = self._load(runtime, version)
        ready = time.perf_counter()
        try:
            loaded.infer()
        except Exception as error:  # each runtime has exceptions of its own
            shapes = ", ".join(f"{name} {shape}" for name, shape in loaded.inputs.items())
            what = f"{settings.runtime} failed on {shapes}"
            raise ModelFileError(fault(str(self.path), what, got=reason(error))) from error
        first = time.perf_counter() - ready
        self._callers = loaded.callers(settings.streams)
        self._cpu_start, self._wait_start = time.process_time(), wait_seconds()
        return Opened(
            settings.runtime, version, (ready - start) * 1e3, first * 1e3, base, loaded.inputs,
            loaded.provider, loaded.precision, loaded.notes,
        )  # fmt: skip

    def _load(self, runtime: ModuleType, version: str) -> Loaded:
        try:
            loaded: Loaded = runtime.load(self.path, self.settings)
        except (EdgeKDError, MemoryError):
            raise
        except Exception as error:  # each runtime has exceptions of its own
            what = f"{self.settings.runtime} {version} cannot load the file"
            raise ModelFileError(fault(str(self.path), what, got=reason(error))) from error
        return loaded

    def round(self) -> list[float]:
        if not self._callers:
            raise RuntimeError("round before open")
        settings = self.settings
        if settings.streams > 1:
            return timed_streams(
                self._callers, warmup=settings.warmup, runs=settings.runs,
                max_seconds=settings.max_seconds_per_round, until_stable=settings.until_stable,
            )  # fmt: skip
        return timed_round(
            self._callers[0], warmup=settings.warmup, runs=settings.runs,
            max_seconds=settings.max_seconds_per_round, until_stable=settings.until_stable,
        )  # fmt: skip

    def finish(self) -> Finished:
        waited = wait_seconds()
        if waited is not None and self._wait_start is not None:
            waited = max(0.0, waited - self._wait_start)
        return Finished(memory_bytes("VmHWM"), time.process_time() - self._cpu_start, waited)

    def close(self) -> None:
        self._callers = []


def memory_bytes(field: str) -> int:
    """``VmRSS`` (resident now) or ``VmHWM`` (its peak) of this process; 0 where the system does not tell.

    ``ru_maxrss`` is not used: it starts at the parent's peak.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def wait_seconds() -> float | None:
    """Time in which this process's living threads could have run but another had the core, or None.

    The second number of ``/proc/self/task/*/schedstat``, in nanoseconds (Linux,
    Documentation/scheduler/sched-stats.rst).
    """
    found = []
    for path in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            found.append(int(path.read_text(encoding="ascii").split()[1]))
    return sum(found) / 1e9 if found else None


def _runner(path: Path, settings: RunSettings) -> Runner:
    """A runtime that is a program of its own is asked from here where this process runs on another machine."""
    runtime = RUNTIMES[settings.runtime]
    if runtime.in_worker:
        return InProcessRunner(path, settings)
    program: Runner = import_module(f"edgekd.profiles.runtimes.{runtime.module}").start(path, settings)
    return program


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests until there are no more."""
    runner: Runner | None = None
    for line in requests:
        answer: dict[str, Any]
        try:
            request = json.loads(line)
            if request["do"] == "open":
                runner = _runner(Path(request["path"]), RunSettings(**request["settings"]))
                answer = {"ok": asdict(runner.open())}
            elif runner is not None and request["do"] == "round":
                answer = {"ok": runner.round()}
            elif runner is not None and request["do"] == "finish":
                answer = {"ok": asdict(runner.finish())}
            else:
                answer = {"error": {"type": "protocol", "message": f"cannot do {request['do']!r} now"}}
        except EdgeKDError as error:
            answer = {"error": {"type": type(error).__name__, "message": str(error)}}
        except MemoryError:
            answer = {"error": {"type": "EdgeKDError", "message": "the memory is not enough"}}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    # The terminal's Ctrl-C goes to the whole group; the parent decides what becomes of this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Answers get the real standard output; whatever a library prints there goes to standard error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
