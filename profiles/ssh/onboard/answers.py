"""The agent's answers: takes files, starts one worker process a model, passes questions on.

Requests are one JSON object a line, ``put`` followed by the file's bytes. Answers are ``{"ok": ...}`` or
``{"error": {"type": ..., "message": ...}}``; the first comes unasked and says what the board is.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgekd.profiles.machine import read_own_cores
from edgekd.profiles.ssh.onboard.folder import Folder
from edgekd.profiles.ssh.onboard.pipes import Gone, Pipes, ignore_endings
from edgekd.profiles.ssh.onboard.programs import Monitor, told
from edgekd.profiles.ssh.onboard.venv import SetupError, make_venv, venv_python

_DESCRIPTORS = "/proc/self/fd"
_BOOT = (
    "import sys; sys.path = [p for p in sys.path if p]; f = sys.stdin.buffer; "
    "exec(compile(f.read(int(f.readline())), 'edgekd-worker', 'exec'))"
)


class Agent:
    """Answers requests until the caller, the guard or a signal ends it.

    Args:
        carried: the modules of this program as one text: a worker is started with it.
    """

    def __init__(self, folder: Folder, pipes: Pipes, carried: str) -> None:
        self.folder = folder
        self.pipes = pipes
        self.carried = carried
        self.workers: dict[int, subprocess.Popen[bytes]] = {}
        self.stderr: dict[int, Any] = {}
        self.files: list[Any] = []
        self.alive, self._held = os.pipe()  # ends for the workers when this process does
        self.monitor: Monitor | None = None

    def run(self) -> int:
        """Exit status: 0 when the caller said goodbye."""
        try:
            self.pipes.answer({"ok": _about()})
            while True:
                request = self.pipes.request()
                if request["do"] == "bye":
                    return 0
                try:
                    answer = {"ok": getattr(self, f"do_{request.pop('do')}")(**request)}
                except OSError as error:
                    answer = _error(
                        "OSError", f"{error.strerror}: {error.filename or self.folder.path}", error.errno
                    )
                except SetupError as error:
                    answer = _error("SetupError", str(error), None)
                except _Died as error:
                    answer = _error("Died", error.told, error.code)
                self.pipes.answer(answer)
        except Gone:
            return 1
        finally:
            ignore_endings()
            processes = list(self.workers.values())
            if self.monitor and self.monitor.process:
                processes.append(self.monitor.process)
            for process in processes:
                process.kill()
            self.folder.remove()

    def do_room(self, bytes: int) -> None:
        """Settle where the files go."""
        self.folder.choose(bytes)

    def do_put(self, file: str, bytes: int, alone: bool) -> str:
        """Take a file; its path for a worker. All of it is read from the caller also when the disk is full.

        Args:
            alone: nothing refers to it by its name: it can do without one.
        """
        stream: Any = None
        failure: OSError | None = None
        nameless = alone and Path(_DESCRIPTORS).is_dir()
        try:
            stream = self.folder.nameless() if nameless else self.folder.named(file)
        except OSError as error:
            failure = error
        for block in self.pipes.blocks(bytes):
            try:
                while stream and block and not failure:
                    block = block[stream.write(block) :]
            except OSError as error:
                failure = error
        if failure:
            failure.filename = str(self.folder.path.parent)
            raise failure
        if nameless:
            self.files.append(stream)
            return f"{_DESCRIPTORS}/{stream.fileno()}"
        stream.close()
        return str(stream.name)

    def do_start(self, worker: int, python: str) -> int:
        """Start a worker with an interpreter that has the runtime; its process id."""
        start = f"work({str(self.folder.path)!r}, {self.alive})\n"
        code = f"{self.carried}from edgekd.profiles.ssh.onboard.agent import work\n{start}".encode()
        self.stderr[worker] = self.folder.nameless()
        process = subprocess.Popen(  # noqa: S603
            [python, "-u", "-c", _BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr[worker],
            env={**os.environ, "TMPDIR": str(self.folder.path)} if self.folder.path.exists() else None,
            pass_fds=[self.alive, *(file.fileno() for file in self.files)],
        )
        self.workers[worker] = process
        self._write(worker, b"%d\n" % len(code) + code)
        return process.pid

    def do_ask(self, worker: int, line: str) -> dict[str, Any]:
        """Pass a worker's request on; its answer, with what the monitor saw meanwhile."""
        stdout = self.workers[worker].stdout
        assert stdout
        start = time.monotonic()
        self._write(worker, line.encode() + b"\n")
        answer = self.pipes.line_of(stdout.fileno())
        if answer is None:
            raise self._died(worker)
        return {"line": answer.decode(), "monitor": self.monitor.since(start) if self.monitor else []}

    def do_loaded(self) -> None:
        """The files are not needed any more."""
        while self.files:
            self.files.pop().close()
        self.folder.remove()

    def do_state(self) -> dict[str, Any]:
        state = asdict(read_own_cores())
        state["governors"] = sorted(state["governors"])
        return state

    def do_health(self, often: bool) -> dict[str, str]:
        return told(often)

    def do_watch(self) -> bool:
        """Start the monitor; whether there is one."""
        self.monitor = Monitor(self.pipes)
        return self.monitor.process is not None

    def do_python(self, chosen: str | None, needed: list[str]) -> dict[str, Any]:
        """An interpreter that has the modules: the one chosen, this one, or the venv made for them."""
        venv = venv_python(self.folder.cache)
        if chosen:
            return {"python": str(Path(chosen).expanduser()), "missing": []}
        missing = [name for name in needed if importlib.util.find_spec(name) is None]
        if missing and venv.exists():
            return {"python": str(venv), "missing": []}
        return {"python": sys.executable, "missing": missing}

    def do_setup(self) -> str:
        """Make the venv; its interpreter."""
        return make_venv(self.folder, self.pipes)

    def _write(self, worker: int, data: bytes) -> None:
        stdin = self.workers[worker].stdin
        assert stdin
        if not self.pipes.pass_on(stdin.fileno(), data):
            raise self._died(worker)

    def _died(self, worker: int) -> _Died:
        code = self.workers[worker].wait()
        stderr = self.stderr[worker]
        stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - 5000))
        return _Died(code, stderr.read().decode("utf-8", "replace"))


class _Died(Exception):
    """A worker ended: its exit status, negative for a signal, and the end of its standard error."""

    def __init__(self, code: int, told: str) -> None:
        super().__init__(told)
        self.code = code
        self.told = told


def _about() -> dict[str, Any]:
    try:
        model = Path("/proc/device-tree/model").read_text(encoding="utf-8", errors="replace").rstrip("\0\n")
    except OSError:
        model = ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "machine": platform.machine(),
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "model": model,
        "python": platform.python_version(),
        "cores": cores,
    }


def _error(kind: str, message: str, code: int | None) -> dict[str, Any]:
    return {"error": {"type": kind, "message": message, "code": code}}
