"""Either side killed at any point: nothing stays on the board, and whoever is left says why.

That nothing stays is what the fixture ``board`` asserts after each test.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd.errors import EdgeKDError
from edgekd.profiles.ssh.measured import measure_on_host

# Longer than any of these tests, and yet a test that waits in vain fails within two minutes.
ENDLESS: dict[str, Any] = {
    "rounds": 4,
    "runs": 10**9,
    "warmup": 0,
    "max_seconds_per_round": 30.0,
    "resume": False,
}
CALLER = f"""\
import sys
from pathlib import Path
from edgekd.profiles.ssh.destination import SshOptions
from edgekd.profiles.ssh.measured import measure_on_host
config, model = map(Path, sys.argv[1:])
measure_on_host({{"m": model}}, "board", options=SshOptions(config=config),
                progress=lambda *step: print(step[2], flush=True), **{ENDLESS!r})
"""


def ours(board) -> dict[str, int]:
    """Processes by their part: those of the board, and ``ssh`` here."""
    parts = board.parts()
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    for child in children:
        if Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"ssh\0"):
            parts["ssh"] = int(child)
    return parts


def open_files(pid: int) -> list[str]:
    names = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            names.append(str(link.readlink()))
    return names


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

    def progress(percent: int, _total: int, label: str) -> None:
        if point == "copying" and label == "copy to board" and percent >= 50:
            once()
        if point == "a round" and label == "m":
            threading.Timer(0.2, once).start()

    if point == "loading":
        options = board.patched(NEVER_LOADED)
        threading.Thread(
            target=lambda: (board.wait_until(lambda: (board.home / "silent").exists()), once())
        ).start()
    with pytest.raises((EdgeKDError, KeyboardInterrupt)) as caught:
        measure_on_host({"m": model}, "board", options=options, progress=progress, **ENDLESS)
    assert done, caught.value
    return caught.value


NEVER_LOADED = (
    "worker.InProcessRunner.open = lambda self: "
    "(pathlib.Path.home().joinpath('silent').touch(), time.sleep(600))"
)
LOST = "board: the connection was lost during {point}.*SIGKILL.*run the same command again"
KILLED = "board: edgekd's agent on the board was killed during {point}.*SIGKILL"
CUT = "board: edgekd's agent on the board was killed, or the connection cut, during {point}"


@pytest.mark.parametrize(
    ("point", "parts", "told"),
    [
        ("copying", "ssh", LOST),
        ("copying", "guard+agent", CUT),
        ("loading", "ssh", LOST),
        ("loading", "agent", KILLED),
        ("loading", "guard+agent+worker", CUT),
        ("a round", "ssh", LOST),
        ("a round", "agent", KILLED),
        ("a round", "guard", CUT),
        ("a round", "guard+agent", CUT),
        ("a round", "guard+agent+worker", CUT),
        ("a round", "worker", "on board: the measuring process was killed, most often for want of memory"),
    ],
)
def test_something_dies(board, make_model, point: str, parts: str, told: str) -> None:
    def strike() -> None:
        if point == "copying":  # what is sent has arrived there, at least in part
            board.wait_until(lambda: any(str(board.tmp) in name for name in open_files(ours(board)["agent"])))
        kill(board, parts)

    error = measured(board, make_model(size=700), point, strike)
    assert re.search(told.format(point=point), str(error)), error
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("point", "parts"),
    [
        ("copying", "agent"),
        ("copying", "guard+agent"),
        ("loading", "guard+agent"),
        ("loading", "guard+agent+worker"),
    ],
)
def test_something_dies_while_files_have_names(board, make_model, point: str, parts: str) -> None:
    """External data are found by their names: until they are loaded they lie in a folder on the board."""

    def strike() -> None:
        board.wait_until(lambda: list(board.tmp.rglob("model.onnx")))
        kill(board, parts)

    measured(board, make_model(size=700, external="w.data"), point, strike)


@pytest.fixture
def interruptible():
    """Ctrl-C is heard also where whoever started the tests has it ignored, as a shell does for what runs behind."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("point", ["copying", "a round"])
@pytest.mark.usefixtures("interruptible")
def test_the_caller_is_interrupted(board, make_model, point: str) -> None:
    error = measured(board, make_model(size=700), point, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert isinstance(error, KeyboardInterrupt)
    assert "ssh" not in ours(board)


def test_the_caller_is_killed(board, make_model) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CALLER, board.folder / "config", make_model()],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert any(line == "m\n" for line in process.stdout)  # the first round begins
    board.wait_until(lambda: "worker" in ours(board))
    process.kill()
    process.communicate()


@pytest.mark.parametrize("parts", ["guard+agent", "guard+agent+worker"])
def test_a_program_that_measures_dies_with_us(board, make_model, parts: str) -> None:
    board.program("trtexec", 'touch "$TMPDIR/left"; touch "$HOME/builds"; exec sleep 600')

    def strike() -> None:
        board.wait_until(lambda: (board.home / "builds").exists())
        found = ours(board)
        # ``worker`` may be the program itself, which the worker started.
        program = found["worker"]
        parent = int(Path(f"/proc/{program}/stat").read_text().rpartition(")")[2].split()[1])
        if parent != found["agent"]:
            found["worker"] = parent
        for part in parts.split("+"):
            os.kill(found[part], signal.SIGKILL)

    threading.Thread(target=strike).start()
    with pytest.raises(EdgeKDError, match="during loading"):
        measure_on_host({"m": make_model()}, "board", options=board.options, runtime="trtexec", **ENDLESS)
