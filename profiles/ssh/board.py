"""A board with an agent on it, for as long as the connection stands."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from edgekd import errors
from edgekd.errors import EdgeKDError, HostError, MissingDependencyError, fault
from edgekd.profiles.machine import MachineState
from edgekd.profiles.ssh.bundle import program
from edgekd.profiles.ssh.destination import SshOptions
from edgekd.profiles.ssh.failures import printable
from edgekd.profiles.ssh.link import Link

LEAST_PYTHON = (3, 8)
_ANSWER_SECONDS = 60.0
_BLOCK_BYTES = 1 << 16
_ROOM_BYTES = 16 << 20  # beside the models


class BoardAnswerError(HostError):
    """The agent's error answer; ``kind``, ``message`` and ``code`` for who can say it better."""

    def __init__(self, host: str, kind: str, message: str, code: int | None) -> None:
        super().__init__(fault(host, message))
        self.kind = kind
        self.message = message
        self.code = code


class Board:
    """Carries the agent over and talks to it. A context manager: leaving it ends everything on the board.

    Attributes:
        told: called with what a long task on the board prints.
        about: ``machine``, ``bits``, ``model``, ``python``, ``cores``, as the board says.

    Raises:
        HostError: the board cannot be reached or refuses, or its Python is missing or too old; one line.
    """

    def __init__(
        self, host: str, options: SshOptions | None = None, told: Callable[[str], None] | None = None
    ) -> None:
        self.host = host
        self.told = told
        self.options = options or SshOptions()
        text = program("edgekd.profiles.ssh.onboard.agent")
        self.link = Link(host, text, self.options, least=LEAST_PYTHON, beat=b"\n")
        try:
            told_of_it = self._answer(_ANSWER_SECONDS)
            self.about: dict[str, Any] = {
                key: printable(value).strip()[:100] if isinstance(value, str) else value
                for key, value in told_of_it.items()
            }
        except BaseException:
            self.link.close()
            raise

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.link.close()

    def python(self, needed: Sequence[str]) -> str:
        """The interpreter there that has the modules: the chosen one, python3, or that of the venv.

        Raises:
            MissingDependencyError: none has them; says how to install them.
        """
        found = self.ask("the search for the runtime", do="python", chosen=self.options.python, needed=needed)
        if found["missing"]:
            missing = " and ".join(found["missing"])
            fix = f"run there: pip install {' '.join(found['missing'])}"
            if self.about["bits"] == 32:
                fix = "such runtimes have no 32-bit packages: install a 64-bit system on the board"
            elif set(found["missing"]) <= {"numpy", "onnxruntime"}:
                fix = "--setup-venv installs it in ~/.cache/edgekd there; or there: pip install onnxruntime numpy"
            what = f"python3 there ({self.about['python']}) lacks {missing}"
            raise MissingDependencyError(fault(self.host, what, fix=fix))
        return str(found["python"])

    def make_room(self, size: int) -> None:
        """Settle where files of ``size`` bytes together go."""
        try:
            self.ask("the start", do="room", bytes=size + _ROOM_BYTES)
        except BoardAnswerError as error:
            raise self._disk(error) from None

    def put(
        self, source: Path, name: str, *, alone: bool = False, told: Callable[[int], None] | None = None
    ) -> str:
        """Copy a file; its path for a worker there.

        Args:
            name: generated, or from the model; it cannot lead out of the folder.
            alone: no other file refers to it by its name.
            told: called with the bytes sent so far.
        """
        self.link.during = "copying"
        size, done = source.stat().st_size, 0
        self._send({"do": "put", "file": name, "bytes": size, "alone": alone})
        with source.open("rb") as stream:
            while done < size:
                block = stream.read(min(_BLOCK_BYTES, size - done))
                if not block:
                    raise EdgeKDError(
                        fault(str(source), "became shorter while it was copied", fix="try again")
                    )
                self.link.send(block)
                done += len(block)
                if told:
                    told(done)
        try:
            return str(self._answer(_ANSWER_SECONDS))
        except BoardAnswerError as error:
            raise self._disk(error) from None

    def state(self) -> MachineState:
        """The board's :class:`~edgekd.profiles.machine.MachineState` now."""
        return state_of(self.ask("a look at the machine", do="state"))

    def health(self, *, often: bool = False) -> dict[str, str]:
        """What the board's own programs print, by command line."""
        return dict(self.ask("a look at the board's health", do="health", often=often))

    def goodbye(self) -> None:
        """End the agent and wait until it has cleaned up; leaving the context without it is as clean."""
        self.link.during = "the end"
        self._send({"do": "bye"})
        self.link.rest(_ANSWER_SECONDS, 1 << 20)

    def ask(self, during: str, seconds: float = _ANSWER_SECONDS, **request: Any) -> Any:
        """One request and its answer.

        Raises:
            BoardAnswerError: the agent answers with an error.
            EdgeKDError: the connection broke, or no answer came in time; says during what.
        """
        self.link.during = during
        self._send(request)
        return self._answer(seconds)

    def _send(self, request: dict[str, Any]) -> None:
        self.link.send(json.dumps(request).encode() + b"\n")

    def _answer(self, seconds: float) -> Any:
        line = self.link.line(seconds)
        try:
            answer = json.loads(line)
            while "told" in answer:  # how far a long task is
                if self.told:
                    self.told(printable(str(answer["told"])))
                line = self.link.line(seconds)
                answer = json.loads(line)
            if "ok" in answer:
                return answer["ok"]
            error = answer["error"]
            raise BoardAnswerError(
                self.host, str(error["type"]), printable(str(error["message"])), error["code"]
            )
        except (ValueError, KeyError, TypeError):
            got = printable(line[:200].decode("utf-8", "replace"))
            raise EdgeKDError(fault(self.host, "the agent's answer makes no sense", got=got)) from None

    def _disk(self, error: BoardAnswerError) -> EdgeKDError:
        if error.code in (errno.ENOSPC, errno.EDQUOT):
            fix = "free some space there"
            return HostError(fault(self.host, "the disk there is full", got=error.message, fix=fix))
        return HostError(fault(self.host, "cannot write files there", got=error.message))


def state_of(entry: dict[str, Any]) -> MachineState:
    """From JSON, where sets and tuples are lists."""
    fixed: dict[str, Any] = {key: _tuple(value) for key, value in entry.items()}
    fixed["governors"] = frozenset(entry["governors"])
    return MachineState(**fixed)


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list) else value


def worker_error(kind: str, message: str) -> EdgeKDError:
    """A worker's own error, as it would be here."""
    found = getattr(errors, kind, EdgeKDError)
    return found(printable(message)) if issubclass(found, EdgeKDError) else EdgeKDError(printable(message))
