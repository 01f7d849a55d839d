"""The parent's side of a worker process: a runner whose model lives in a process of its own."""

from __future__ import annotations

import contextlib
import json
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from edgekd import errors
from edgekd.errors import EdgeKDError, ModelFileError, fault
from edgekd.profiles.runner import Finished, Opened, Runner, RunSettings
from edgekd.profiles.runtimes import RUNTIMES

_START_SECONDS = 300.0
_BUILD_SECONDS = 3600.0  # TensorRT times its kernels when it opens a file; on a Jetson that takes long
_CLOSE_SECONDS = 2.0
# -P: a numpy.py in the folder where the user happens to stand is not imported.
_COMMAND = (sys.executable, "-P", "-m", "edgekd.profiles.worker")


def start_runner(path: Path, settings: RunSettings) -> Runner:
    """A process for the file: one of ours, or a runtime's own program."""
    runtime = RUNTIMES[settings.runtime]
    if runtime.in_worker:
        return WorkerRunner(path, settings)
    module = import_module(f"edgekd.profiles.runtimes.{runtime.module}")
    runner: Runner = module.start(path, settings)
    return runner


class WorkerRunner:
    """Runs one file with its runtime in a process of its own. Not one thread of it is awake between rounds.

    Args:
        command: argument list that starts the worker.
    """

    def __init__(self, path: Path, settings: RunSettings, *, command: tuple[str, ...] = _COMMAND) -> None:
        self.path = Path(path)
        self.settings = settings
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process)
        self._process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, bufsize=0
        )
        self._pending = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    def open(self) -> Opened:
        request = {"do": "open", "path": str(self.path), "settings": asdict(self.settings)}
        builds = self.settings.provider == "tensorrt"
        return Opened(**self._ask(request, _BUILD_SECONDS if builds else _START_SECONDS))

    def round(self) -> list[float]:
        # A round ends by its own budget, unless one inference alone takes longer.
        return list(self._ask({"do": "round"}, 10 * self.settings.max_seconds_per_round + _START_SECONDS))

    def finish(self) -> Finished:
        return Finished(**self._ask({"do": "finish"}, _START_SECONDS))

    def close(self) -> None:
        """End the process: by closing its input, and by a kill if it does not follow."""
        process = self._process
        if process.stdin:
            with contextlib.suppress(OSError):
                process.stdin.close()
        try:
            process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()
        self._stderr.close()

    def _ask(self, request: dict[str, Any], seconds: float) -> Any:
        line = json.dumps(request).encode() + b"\n"
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(line)
        except OSError:
            raise self._death() from None
        answer = json.loads(self._read_line(seconds))
        if "ok" in answer:
            return answer["ok"]
        kind = getattr(errors, answer["error"]["type"], EdgeKDError)
        raise kind(answer["error"]["message"])

    def _read_line(self, seconds: float) -> bytes:
        stdout = self._process.stdout
        assert stdout is not None
        end = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                if not selector.select(max(0.0, end - time.monotonic())):
                    self._process.kill()
                    what = f"no answer from the measuring process in {seconds:.0f} s"
                    raise EdgeKDError(fault(str(self.path), what, fix="measure a smaller input or batch"))
                block = stdout.read(1 << 16)
                if not block:
                    raise self._death()
                self._pending += block
        line, self._pending = self._pending.split(b"\n", 1)
        return line

    def _death(self) -> EdgeKDError:
        code = self._process.wait()
        self._stderr.seek(0)
        return death(str(self.path), code, self._stderr.read().decode("utf-8", "replace"))


def death(where: str, code: int, told: str) -> EdgeKDError:
    """Why a worker process ended, in one line.

    Args:
        where: its file.
        code: exit status, negative for a signal.
        told: its standard error.
    """
    if code == -signal.SIGKILL:
        fix = "free memory, or measure a smaller model, input or batch"
        return EdgeKDError(
            fault(where, "the measuring process was killed, most often for want of memory", fix=fix)
        )
    if code == -signal.SIGILL:
        what = "onnxruntime uses an instruction that this processor lacks"
        return EdgeKDError(fault(where, what, got="SIGILL", fix="install another version of onnxruntime"))
    if code < 0:
        name = signal.Signals(-code).name
        what = "the runtime crashed on this file"
        return ModelFileError(fault(where, what, got=name, fix="run: edgekd check on the file"))
    lines = told.strip().splitlines()
    got = lines[-1] if lines else f"exit status {code}"
    return EdgeKDError(fault(where, "the measuring process ended early", got=got))
