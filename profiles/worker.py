"""One model in one process: ``python -m edgekd.profiles.worker``, one JSON object a line in and out.

Requests: ``{"do": "open", "path": ..., "settings": {...}}``, ``{"do": "round"}``, ``{"do": "finish"}``.
Answers: ``{"ok": ...}``, or ``{"error": {"type": ..., "message": ...}}``. The process ends when its
input does, so that it never outlives whoever started it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from edgekd.errors import EdgeKDError
from edgekd.profiles.runner import Finished, Opened, RunSettings
from edgekd.profiles.timing import timed_round


class OnnxRuntimeRunner:
    """A :class:`~edgekd.profiles.runner.Runner` in this very process."""

    def __init__(self, path: Path, settings: RunSettings) -> None:
        self.path = path
        self.settings = settings
        self._infer: Callable[[], object] | None = None
        self._cpu_start = 0.0

    def open(self) -> Opened:
        from edgekd.profiles.inputs import random_inputs, text_limits
        from edgekd.profiles.session import open_session, run, runtime

        version = runtime().__version__
        base = memory_bytes("VmRSS")
        start = time.perf_counter()
        session = open_session(self.path, threads=self.settings.threads)
        loaded = time.perf_counter()
        feeds = random_inputs(
            session.get_inputs(),
            batch=self.settings.batch,
            shape=self.settings.shape,
            seed=self.settings.seed,
            text=text_limits(session),
        )
        before = time.perf_counter()
        run(session, feeds)
        first = time.perf_counter() - before
        self._infer = lambda: session.run(None, feeds)
        self._cpu_start = time.process_time()
        shapes = {name: list(values.shape) for name, values in feeds.items()}
        return Opened("onnxruntime", version, (loaded - start) * 1e3, first * 1e3, base, shapes)

    def round(self) -> list[float]:
        if self._infer is None:
            raise RuntimeError("round before open")
        settings = self.settings
        return timed_round(
            self._infer,
            warmup=settings.warmup,
            runs=settings.runs,
            max_seconds=settings.max_seconds_per_round,
        )

    def finish(self) -> Finished:
        return Finished(memory_bytes("VmHWM"), time.process_time() - self._cpu_start)

    def close(self) -> None:
        self._infer = None


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


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests until there are no more."""
    runner: OnnxRuntimeRunner | None = None
    for line in requests:
        answer: dict[str, Any]
        try:
            request = json.loads(line)
            if request["do"] == "open":
                runner = OnnxRuntimeRunner(Path(request["path"]), RunSettings(**request["settings"]))
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
