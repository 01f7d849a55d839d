"""Installing what a measurement needs on a board, in a virtual environment of edgekd's own there."""

from __future__ import annotations

from collections.abc import Callable

from edgekd.errors import HostError, fault
from edgekd.profiles.ssh.board import Board, BoardAnswerError
from edgekd.profiles.ssh.destination import SshOptions

_SILENT_SECONDS = 1800.0  # unpacking onto a slow card


def setup_venv(
    host: str, *, told: Callable[[str], None] | None = None, options: SshOptions | None = None
) -> str:
    """Make ``~/.cache/edgekd/venv`` on the board, with onnxruntime and numpy in it.

    Nothing else on the board changes; removing the folder undoes it. Later measurements use it wherever the
    board's own ``python3`` lacks the two.

    Args:
        told: called with each line that pip prints there.

    Returns:
        Path of the interpreter on the board.

    Raises:
        HostError: the board cannot be reached, or cannot make the venv or install the packages; one line.
        EdgeKDError: the connection was lost; the half-made venv is removed there.
    """
    with Board(host, options, told=told) as board:
        try:
            python = str(board.ask("the set-up", _SILENT_SECONDS, do="setup"))
        except BoardAnswerError as error:
            raise _failure(board, error.message) from None
        board.goodbye()
    return python


def _failure(board: Board, told: str) -> HostError:
    told = " / ".join(told.splitlines())
    if "ensurepip" in told:
        fix = "run there: sudo apt install python3-venv"
        return HostError(fault(board.host, "python3 there cannot make a venv", got=told, fix=fix))
    if "No matching distribution" in told:
        about = f"Python {board.about['python']}, {board.about['machine']}, {board.about['bits']} bit"
        fix = "onnxruntime needs a 64-bit system and a Python that its wheels are made for"
        return HostError(fault(board.host, f"no onnxruntime for {about}", got=told, fix=fix))
    return HostError(fault(board.host, "the set-up failed there", got=told))
