"""A model that is held open on a board: a Runner like any other, its worker at the far end of the connection."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgekd.errors import EdgeKDError, fault
from edgekd.profiles.process import death
from edgekd.profiles.runner import Finished, Opened, RunSettings
from edgekd.profiles.runtimes import RUNTIMES
from edgekd.profiles.ssh.board import Board, BoardAnswerError, worker_error
from edgekd.profiles.ssh.failures import printable

_LOAD_SECONDS = 600.0  # a slow card, a model that just fits
_BUILD_SECONDS = 4000.0  # of an engine
_SLACK_SECONDS = 300.0  # one inference alone may take longer than the round's budget


class RemoteRunner:
    """One worker process on the board.

    Args:
        number: of the worker, on the board.
        remote_path: the model there.
        path: the same file here; messages name it.

    Attributes:
        monitor_lines: that the board's monitor printed during the last round.
    """

    def __init__(
        self,
        board: Board,
        number: int,
        *,
        python: str,
        remote_path: str,
        path: Path,
        settings: RunSettings,
    ) -> None:
        self.board = board
        self.number = number
        self.remote_path = remote_path
        self.path = path
        self.settings = settings
        self.monitor_lines: list[str] = []
        try:
            board.ask("the start of a worker", do="start", worker=number, python=python)
        except BoardAnswerError as error:
            raise self._said(error) from None

    def open(self) -> Opened:
        request = {"do": "open", "path": self.remote_path, "settings": asdict(self.settings)}
        seconds = _LOAD_SECONDS if RUNTIMES[self.settings.runtime].in_worker else _BUILD_SECONDS
        answer, _ = self._ask("loading", seconds, request)
        fields: dict[str, Any] = {
            key: printable(value) if isinstance(value, str) else value for key, value in answer.items()
        }
        return Opened(**fields)

    def round(self) -> list[float]:
        seconds = 10 * self.settings.max_seconds_per_round + _SLACK_SECONDS
        answer, self.monitor_lines = self._ask("a round", seconds, {"do": "round"})
        return [float(value) for value in answer]

    def finish(self) -> Finished:
        answer, _ = self._ask("the last answer", _LOAD_SECONDS, {"do": "finish"})
        return Finished(**answer)

    def close(self) -> None:
        """Nothing: the worker ends with the board's agent, whatever becomes of us."""

    def _ask(self, during: str, seconds: float, request: dict[str, Any]) -> tuple[Any, list[str]]:
        what = f"{during} of {self.path.name}"
        try:
            found = self.board.ask(what, seconds, do="ask", worker=self.number, line=json.dumps(request))
        except BoardAnswerError as error:
            raise self._said(error) from None
        try:
            answer = json.loads(found["line"])
            if "ok" in answer:
                return answer["ok"], [str(line) for line in found["monitor"]]
            kind, message = str(answer["error"]["type"]), str(answer["error"]["message"])
        except (ValueError, KeyError, TypeError):
            raise EdgeKDError(
                fault(self.board.host, f"the worker's answer to {during} makes no sense")
            ) from None
        raise worker_error(kind, f"{self.board.host}: {message.replace(self.remote_path, str(self.path))}")

    def _said(self, error: BoardAnswerError) -> EdgeKDError:
        if error.kind != "Died":
            return error
        told = error.message.replace(self.remote_path, str(self.path))
        return death(f"{self.path} on {self.board.host}", error.code or 0, told)
