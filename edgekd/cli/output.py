"""Printing: results on stdout, progress and messages on stderr, JSON where it is asked for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def _writable(json_to: str | None) -> str | None:
    """Refused before the work, not after it."""
    if json_to not in (None, "-"):
        from edgekd.artifact import check_writable

        check_writable(Path(str(json_to)), fix="give --json another file")
    return json_to


JsonOption = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", callback=_writable, help="Write the result as JSON; - is stdout."),
]


def write_result(value: Any, json_to: str | None) -> bool:
    """Write ``value`` as JSON if asked for; True when stdout is taken by it."""
    if json_to is None:
        return False
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    if json_to == "-":
        sys.stdout.write(text)
        return True
    from edgekd.artifact import write_text

    write_text(Path(json_to), text)
    return False


def show(renderable: Any) -> None:
    """A rich renderable on stdout; as wide as it needs where stdout is not a terminal, and nothing wider."""
    console = _console()
    if console.is_terminal:
        console.print(renderable)
        return
    with console.capture() as caught:
        console.print(renderable)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in caught.get().splitlines()))


def terminal_width() -> int:
    """Columns that :func:`show` has."""
    return int(_console().width)


def _console() -> Any:
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(file=sys.stdout, highlight=False, width=160, color_system=None)
    return console
