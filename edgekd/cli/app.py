"""The verbs, and what becomes of an error: one line on stderr and the exit code that fits it."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer
from typer.exceptions import Exit, TyperException

from edgekd import __version__
from edgekd.cli import (
    check,
    compare,
    compress,
    demo,
    devices,
    doctor,
    evaluate,
    export,
    listing,
    profile,
    report,
)
from edgekd.errors import EdgeKDError

app = typer.Typer(
    name="edgekd",
    help="From a trained model and a folder of data to a smaller, faster ONNX model for your device, "
    "with the evidence beside it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("compress")(compress.compress)
app.command("demo")(demo.demo)
app.command("export")(export.export)
app.command("evaluate")(evaluate.evaluate)
app.command("profile")(profile.profile)
app.command("check")(check.check)
app.add_typer(devices.app, name="devices")
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("recipes")(listing.recipes)
app.command("objectives")(listing.objectives)
app.command("doctor")(doctor.doctor)

_INTERRUPTED = 130


def _version(show: bool) -> None:
    if show:
        typer.echo(f"edgekd {__version__}")
        raise Exit(0)


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    show_traceback: Annotated[bool, typer.Option("--traceback", help="Print where an error arose.")] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 the input is wrong, 130 interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    sys.exit(run(given))


def run(arguments: list[str]) -> int:
    """As :func:`main`, but returns the exit code."""
    try:
        result = app(arguments, prog_name="edgekd", standalone_mode=False)
        code = result if isinstance(result, int) else 0
        return _interrupted(arguments) if code == _INTERRUPTED else code  # typer makes this of Ctrl-C
    except TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # typer does not export it
            typer.echo(error.format_message(), err=True)
            return error.exit_code
        text = error.format_message().replace("Value error, ", "")
        if getattr(error, "option_name", None) == "--json":
            text = "--json takes a file to write to, or - for stdout"
        typer.echo(f"edgekd: {text} (see --help)", err=True)
        return error.exit_code
    except EdgeKDError as error:
        if "--traceback" in arguments:
            traceback.print_exc()
        typer.echo(f"edgekd: {error}", err=True)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted(arguments)
    except BrokenPipeError:
        # The reader of a pipe (head, less) went away: nothing is wrong.
        sys.stderr.close()
        return 0


def _interrupted(arguments: list[str]) -> int:
    told = ""
    if {"compress", "demo"} & set(arguments):
        told = "; go on with the same command and --resume"
    elif arguments[:1] == ["profile"] and any(each.partition("=")[0] == "--host" for each in arguments):
        told = "; the same command goes on behind the rounds that are whole"
    typer.echo(f"edgekd: interrupted{told}", err=True)
    return _INTERRUPTED
