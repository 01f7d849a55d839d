"""Running a Python script on a board and reading what it prints."""

from __future__ import annotations

from edgekd.errors import HostError, fault
from edgekd.profiles.ssh.destination import SshOptions
from edgekd.profiles.ssh.failures import last_line
from edgekd.profiles.ssh.link import Link

_MOST_BYTES = 4 << 20
# When the connection ends, so do the script and what it started.
_PRELUDE = """\
import os, signal, sys, threading
if os.getpid() != os.getpgrp():
    os.setpgid(0, 0)
def _end_with_the_connection():
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=_end_with_the_connection, daemon=True).start()
"""


def run_script(
    host: str,
    text: str,
    timeout_s: float = 60.0,
    *,
    least: tuple[int, int] = (3, 6),
    options: SshOptions | None = None,
) -> str:
    """Run a Python script with the board's ``python3`` and return what it printed.

    The script goes by standard input, never through a shell, and no file is written. It ends with the
    connection, at the latest after ``timeout_s``. What it starts should have standard input closed.

    Args:
        text: Python source that needs no more than the board's standard library.
        least: oldest Python that the script takes.

    Raises:
        UserInputError: ``host`` is no host name.
        HostError: the board cannot be reached or refuses, Python is missing or too old, or the script fails.
        EdgeKDError: the connection broke, or the time is over.
    """
    program = f"{_PRELUDE}exec(compile({text!r}, 'script', 'exec'), {{'__name__': '__main__'}})\n"
    link = Link(host, program, options or SshOptions(), least=least)
    link.during = "the script"
    try:
        output, code, told = link.rest(timeout_s, _MOST_BYTES)
    finally:
        link.close()
    if code:
        raise HostError(fault(host, "the script fails there", got=last_line(told) or f"exit status {code}"))
    return output.decode("utf-8", "replace")
