"""Progress on stderr: a bar with rate and time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edgekd.data.source import Progress

_QUIET_SECONDS = 2.0  # what is over sooner is not worth a line
_LINE_EVERY_SECONDS = 15.0


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress function for the library; library log messages are printed above the bar."""
    reporter = _Terminal() if sys.stderr.isatty() else _Lines()
    handler = _LogLines(reporter)
    logger = logging.getLogger("edgekd")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield reporter.update
    finally:
        reporter.close()
        logger.removeHandler(handler)
        logger.setLevel(level)


class _LogLines(logging.Handler):
    def __init__(self, reporter: _Terminal | _Lines) -> None:
        super().__init__(logging.INFO)
        self.reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        self.reporter.line(record.getMessage())


class _Terminal:
    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._bar.start()
        self._what: str | None = None
        self._task: Any = None
        self._started = 0.0

    def update(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self._what:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._what, self._started = what, now
            self._task = self._bar.add_task(what, total=total, rate="")
        seconds = now - self._started
        rate = f"{done / seconds:.1f}/s" if seconds > 0.5 else ""
        self._bar.update(self._task, completed=done, total=total, rate=rate)

    def line(self, text: str) -> None:
        self._bar.console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        self._bar.stop()


class _Lines:
    """Plain lines: a task that lasts says so every few seconds, with rate and time left."""

    def __init__(self) -> None:
        self._what: str | None = None
        self._started = self._told = 0.0

    def update(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._started, self._told = what, now, now
        seconds = now - self._started
        finished = done >= total and seconds > _QUIET_SECONDS
        if finished or (now - self._told >= _LINE_EVERY_SECONDS and done):
            self._told = now
            left = seconds / done * (total - done) if done else 0.0
            tail = f"{seconds:.0f} s" if done >= total else f"{done / seconds:.1f}/s, {left:.0f} s left"
            self.line(f"{what}: {done}/{total} ({tail})")

    def line(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def close(self) -> None:
        pass
