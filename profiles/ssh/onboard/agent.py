"""The board's processes, and how they end: guard, agent and workers.

A model of one file never has a name on the board: it is an open file that the workers inherit, and ends with
them. One with external data lies in a folder until it is loaded. Two processes: the *guard*, which only waits,
and the *agent*, which works. Whichever is killed, the other ends the workers and removes the folder; a worker
that has lost its agent removes it too, and so does a shell that waits for nothing else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading

from edgekd.profiles.ssh.onboard.answers import Agent
from edgekd.profiles.ssh.onboard.folder import Folder
from edgekd.profiles.ssh.onboard.pipes import ENDINGS, Gone, Pipes, ignore_endings

CARRIED = ""  # the modules of this program as one text; the program itself puts it here
LEASE_SECONDS = 120


def main() -> None:
    """Become guard and agent."""
    folder = Folder()
    folder.sweep()
    watched, held = os.pipe()
    pid = os.fork()
    if pid:
        os.close(watched)
        _guard(pid, folder)
    os.close(held)
    code = 1
    try:
        os.setpgid(0, 0)
        code = Agent(folder, Pipes(watched, LEASE_SECONDS), CARRIED).run()
    except Gone:
        pass
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _guard(pid: int, folder: Folder) -> None:
    """Wait for the agent, then see to it that nothing of it is left."""

    def end(number: int, frame: object) -> None:
        raise Gone

    code = 1
    try:
        for number in ENDINGS:
            signal.signal(number, end)
        _, status = os.waitpid(pid, 0)
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
    except Gone:
        pass
    finally:
        ignore_endings()
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)
        folder.remove()
        os._exit(code)


def work(folder: str, alive: int) -> None:
    """A worker's life. One that is left alone ends in the middle of a round, and removes the folder."""
    from edgekd.profiles.worker import main as serve

    def watch() -> None:
        os.read(alive, 1)
        shutil.rmtree(folder, ignore_errors=True)
        os.killpg(0, signal.SIGKILL)  # with what a runtime may have started

    threading.Thread(target=watch, daemon=True).start()
    serve()
