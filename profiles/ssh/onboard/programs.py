"""The board's own programs that tell its health. Their words go to the caller as they are; he parses them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekd.profiles.ssh.onboard.pipes import Pipes

# A login without a terminal often lacks these.
_FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/vc/bin"
_OFTEN = (
    ("vcgencmd", "get_throttled"),
    ("vcgencmd", "measure_temp"),
    ("vcgencmd", "measure_clock", "arm"),
)
_ONCE = (("nvpmodel", "-q"),)
_SECONDS = 5.0
_INTERVAL_MS = "200"
_MOST_LINES = 20_000


def told(often: bool) -> dict[str, str]:
    """What each program that is there prints.

    Args:
        often: only what takes milliseconds and may be asked between rounds.
    """
    answers = {}
    for command in _OFTEN if often else _OFTEN + _ONCE:
        found = find(command[0])
        if found:
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                done = subprocess.run(  # noqa: S603
                    [found, *command[1:]],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    timeout=_SECONDS,
                    check=False,
                )
                answers[" ".join(command)] = done.stdout[:10_000].decode("utf-8", "replace")
    return answers


def find(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path=_FOLDERS)


class Monitor:
    """``tegrastats``, which prints a line every 200 ms for as long as it runs."""

    def __init__(self, pipes: Pipes) -> None:
        self._pipes = pipes
        self._lines: list[tuple[float, str]] = []
        self._pending = b""
        self.process: subprocess.Popen[bytes] | None = None
        program = find("tegrastats")
        if program:
            with contextlib.suppress(OSError):
                self.process = subprocess.Popen(  # noqa: S603
                    [program, "--interval", _INTERVAL_MS],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
                assert self.process.stdout
                pipes.watch(self.process.stdout.fileno(), self._take)

    def since(self, start: float) -> list[str]:
        """Lines that came after ``start``, on the clock of :func:`time.monotonic`."""
        return [line for at, line in self._lines if at >= start]

    def _take(self, block: bytes) -> None:
        *lines, self._pending = (self._pending + block).split(b"\n")
        now = time.monotonic()
        self._lines += [(now, line[:2000].decode("utf-8", "replace")) for line in lines]
        del self._lines[:-_MOST_LINES]
        self._pending = self._pending[-10_000:]
