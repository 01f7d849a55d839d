"""Progress off a terminal: few lines, with rate and time left; on one: a bar."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys

import pytest

from edgekd.cli import progress


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


def told(clock, steps: list[tuple[str, int, int, float]]) -> list[str]:
    """The lines after each ``(what, done, total, seconds later)``."""
    lines: list[str] = []
    reporter = progress._Lines()
    reporter.line = lines.append  # type: ignore[method-assign]
    for what, done, total, later in steps:
        clock.now += later
        reporter.update(what, done, total)
    return lines


def test_what_is_over_in_two_seconds_is_not_told(clock):
    assert told(clock, [("evaluate", 0, 10, 0), ("evaluate", 5, 10, 0.5), ("evaluate", 10, 10, 1.4)]) == []


def test_what_lasts_is_told_with_rate_and_time_left(clock):
    lines = told(
        clock, [("fetch", 0, 100, 0), ("fetch", 20, 100, 10), ("fetch", 40, 100, 10), ("fetch", 50, 100, 5)]
    )
    assert lines == ["fetch: 40/100 (2.0/s, 30 s left)"]


def test_the_end_of_what_lasted_is_told_once(clock):
    lines = told(
        clock, [("fetch", 0, 10, 0), ("fetch", 10, 10, 4), ("evaluate", 1, 10, 0), ("evaluate", 10, 10, 1)]
    )
    assert lines == ["fetch: 10/10 (4 s)"]


def test_the_librarys_log_reaches_stderr_while_a_command_runs(capsys):
    logger = logging.getLogger("edgekd.train")
    logger.isEnabledFor(logging.INFO)  # the answer is remembered; it must be asked again
    with progress.progress_bar():
        logger.info("epoch 1: loss 0.5")
    logger.info("after the command")
    assert capsys.readouterr().err == "epoch 1: loss 0.5\n"


def test_a_terminal_gets_a_bar_with_time_left():
    code = (
        "import time\n"
        "from edgekd.cli.progress import progress_bar\n"
        "with progress_bar() as progress:\n"
        "    for done in range(1, 9):\n"
        "        progress('distill epoch 1/2', done, 8)\n"
        "        time.sleep(0.15)\n"
    )
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-c", code], stderr=follower, env=environment)
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    assert process.wait() == 0
    text = shown.decode()
    assert "distill epoch 1/2" in text and "8/8" in text and "/s" in text and "0:00:0" in text
