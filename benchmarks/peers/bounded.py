"""A command with an end: its own process group, a time limit, and one line about what went wrong."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_MOST = 220
_TAIL_BYTES = 1 << 16
_ERROR_LINE = re.compile(
    r"^(ERROR: |[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit)\b|.*\[ONNXRuntimeError\])"
)


@dataclass(frozen=True)
class Ended:
    """How a command ended. ``code`` is None when its time ran out; ``output`` is the end of what it said."""

    code: int | None
    output: str
    seconds: float

    def reason(self, timeout_s: float) -> str | None:
        """Why it did not do its work, in one line; None when it did."""
        if self.code == 0:
            return None
        if self.code is None:
            return f"not done after {timeout_s:.0f} s"
        if self.code < 0:
            name = signal.Signals(-self.code).name
            more = ", most often for want of memory" if self.code == -signal.SIGKILL else ""
            return f"ended by {name}{more}"
        return last_error(self.output) or f"exit status {self.code}"


def run_bounded(
    command: Sequence[str],
    *,
    timeout_s: float,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Ended:
    """Run ``command`` niced, without input, in ``folder``; it and all its children are gone when this returns."""
    start = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            env=None if environ is None else dict(environ), cwd=folder, preexec_fn=lambda: os.nice(10),
        )  # fmt: skip
        code: int | None
        try:
            code = process.wait(max(timeout_s, 0.0))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end_group(process)
        seconds = time.monotonic() - start
        output.seek(max(0, output.seek(0, os.SEEK_END) - _TAIL_BYTES))
        return Ended(code, output.read().decode("utf-8", "replace"), seconds)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the group; its leader may be gone while its children live on."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def last_error(output: str) -> str:
    """The line of a log that says what went wrong: the last that looks like an error, else the last one."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    found = next((line for line in reversed(lines) if _ERROR_LINE.match(line)), lines[-1] if lines else "")
    return one_line(found)


def one_line(text: str) -> str:
    """``text`` without line breaks, without this machine's folders, and no longer than a cell can be."""
    text = " ".join(text.split())
    text = re.sub(r"(/[\w.+@~-]+){2,}/", "…/", text.replace(str(Path.home()), "~"))
    return text if len(text) <= _MOST else text[: _MOST - 1] + "…"
