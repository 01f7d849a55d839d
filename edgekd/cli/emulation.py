"""``edgekd devices emulate``: the arm64 userland that emulation needs, in the user's cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.output import JsonOption, write_result
from edgekd.errors import MissingDependencyError, UserInputError, fault

_SETUP = "Fetch what is missing (about 40 MB, 200 MB unpacked). Needs no root."
_SOURCES = "A sources.list with arm64 packages, where apt's own has none."


def emulate(
    setup: Annotated[bool, typer.Option("--setup", help=_SETUP)] = False,
    status: Annotated[bool, typer.Option("--status", help="What is there. The default.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Remove everything that was fetched.")] = False,
    sources: Annotated[Path | None, typer.Option(help=_SOURCES)] = None,
    json_to: JsonOption = None,
) -> None:
    """Set up the emulation of Arm boards.

    The real runtime for aarch64, to run on an emulated core.

    Then: edgekd profile MODEL.onnx --device raspberry-pi-4b --method emulate
    """
    from edgekd.profiles.emulation.userland import cache_home, set_up
    from edgekd.profiles.emulation.userland import remove as remove_all

    if setup + status + remove > 1:
        allowed = "one of --setup, --status, --remove"
        raise UserInputError(fault("devices emulate", "asks for several things", allowed=allowed))
    if sources is not None and not (setup and sources.is_file()):
        raise UserInputError(fault("--sources", "needs --setup and a file that exists", got=str(sources)))
    if remove:
        freed = remove_all()
        if not write_result({"removed": str(cache_home()), "bytes": freed}, json_to):
            typer.echo(f"removed {cache_home()}: {freed / 1e6:.0f} MB")
        return
    if setup:
        set_up(sources=sources, progress=lambda text: typer.echo(text, err=True))
    found = _status()
    if write_result(found, json_to):
        return
    for name, value in found.items():
        typer.echo(f"{name:10} {value}")


def _status() -> dict[str, str | bool]:
    """What is there, in words; writes nothing, never raises."""
    from edgekd.profiles.emulation.programs import compiler, qemu
    from edgekd.profiles.emulation.userland import SETUP, cache_home, find_userland, size_bytes

    found = find_userland()
    ready, words = bool(found), []
    for program in (lambda: "{0.program}, version {0.version[0]}.{0.version[1]}".format(qemu()), compiler):
        try:
            words.append(str(program()))
        except MissingDependencyError as error:
            ready = False
            words.append(str(error))
    userland = (
        f"Python {found.python}, onnxruntime {found.runtime_version}" if found else f"not set up; {SETUP}"
    )
    return {
        "ready": ready,
        "userland": userland,
        "qemu": words[0],
        "compiler": words[1],
        "folder": f"{cache_home()}, {size_bytes() / 1e6:.0f} MB",
    }
