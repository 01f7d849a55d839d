"""Either side killed at any point: nothing stays on the board, and whoever is left says why.

That nothing stays is what the fixture ``board`` asserts after each test.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd.errors import EdgeKDError
from edgekd.profiles.ssh import SshOptions, measure_on_host

ENDLESS: dict[str, Any] = {
    "rounds": 1000,
    "runs": 10**9,
    "warmup": 0,
    "max_seconds_per_round": 60.0,
    "resume": False,
}
CALLER = f"""\
import sys
from pathlib import Path
from edgekd.profiles.ssh import SshOptions, measure_on_host
config, model = map(Path, sys.argv[1:])
measure_on_host({{"m": model}}, "board", options=SshOptions(config=config),
                progress=lambda *step: print(step[2], flush=True), **{ENDLESS!r})
"""


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def ours(board) -> dict[str, int]:
    """Processes by their part: ``guard``, ``agent`` and ``worker`` on the board, ``ssh`` here."""
    found = {pid: (parent_of(pid), command) for pid, command in board.processes().items()}
    parts = {}
    for pid, (parent, _) in found.items():
        if parent not in found:
            parts["guard"] = pid
        elif found[parent][0] not in found:
            parts["agent"] = pid
        else:
            parts["worker"] = pid
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    for child in children:
        if Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"ssh\0"):
            parts["ssh"] = int(child)
    return parts


def kill(board, parts: str) -> None:
    found = ours(board)
    for part in parts.split("+"):
        os.kill(found[part], signal.SIGKILL)


def measured(board, model: Path, point: str, action: Callable[[], None]) -> EdgeKDError:
    """Measure without end; at the point do the action; what is said in the end."""
    options = board.options
    done = False

    def once() -> None:
        nonlocal done
        if not done:
            done = True
            action()

    def progress(_done: int, _total: int, label: str) -> None:
        if point == "copying" and label.startswith("copy") and int(label.split()[1]) >= 50:
            once()
        if point == "a round" and label == "m":
            threading.Timer(0.2, once).start()

    if point == "loading":
        # The worker that is started is one that never answers.
        board.program("slow-python", f'exec "{sys.executable}" -c "{SILENT_WORKER}"')
        options = SshOptions(config=options.config, python=str(board.bin / "slow-python"))
        threading.Thread(
            target=lambda: (board.wait_until(lambda: (board.home / "silent").exists()), once())
        ).start()
    with pytest.raises((EdgeKDError, KeyboardInterrupt)) as caught:
        measure_on_host({"m": model}, "board", options=options, progress=progress, **ENDLESS)
    assert done, caught.value
    return caught.value


# Reads what it is sent and says nothing, until there is nothing more to read.
SILENT_WORKER = (
    "import os, pathlib, sys; f = sys.stdin.buffer; f.read(int(f.readline())); f.readline(); "
    "pathlib.Path.home().joinpath('silent').touch(); f.read()"
)
POINTS = ("copying", "loading", "a round")


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ("ssh", "board: the connection was lost during {point}.*SIGKILL.*run the same command again"),
        ("agent", "board: edgekd's agent on the board was killed during {point}.*SIGKILL"),
        ("guard", "board: edgekd's agent on the board was killed, or the connection cut, during {point}"),
        ("guard+agent", "during {point}"),
    ],
)
def test_something_dies(board, make_model, parts: str, told: str, point: str) -> None:
    error = measured(board, make_model(size=1000), point, lambda: kill(board, parts))
    assert re.search(told.format(point=point), str(error)), error
    assert "\n" not in str(error)
