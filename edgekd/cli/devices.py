"""``edgekd devices``: the boards that are known, and the machine at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.emulation import emulate
from edgekd.cli.output import JsonOption, show, terminal_width, write_result

app = typer.Typer(
    help="Boards: what they are and what they can.\n\nEach figure has its source. A board of your own is a file: add.",
    no_args_is_help=True,
)
app.command("emulate")(emulate)


@app.command("list")
def list_all(json_to: JsonOption = None) -> None:
    """Every device that --device takes."""
    from edgekd.cli.device_tables import device_list, summary
    from edgekd.device import load_devices

    specs, problems = load_devices()
    for problem in problems:
        typer.echo(problem, err=True)
    rows = [
        {"name": s.name, "title": s.title, "runtime": s.runtime, "runtime_version": s.runtime_version,
         "opset_max": s.opset_max, "scheme": s.scheme, "memory_bytes": s.memory_bytes,
         "jetpacks": [j.version for j in s.jetpacks], "power_modes": [m.name for m in s.power_modes],
         **{key: value for key, value in summary(s).items() if key not in ("memory", "sparse_2to4")},
         "uses_2to4": summary(s)["sparse_2to4"], "sparse_2to4": s.sparse_2to4}
        for s in specs
    ]  # fmt: skip
    if not write_result(rows, json_to):
        show(device_list(specs, width=terminal_width()))


@app.command("show")
def show_one(
    name: Annotated[str, typer.Argument(help="A device's name or file; a Jetson also as NAME@JETPACK.")],
    as_yaml: Annotated[bool, typer.Option("--yaml", help="As a device file.")] = False,
    json_to: JsonOption = None,
) -> None:
    """One device, each figure with its source.

    Runtimes, power modes, JetPacks, known trouble.
    """
    from edgekd.cli.device_tables import device_page
    from edgekd.device import load_device

    spec = load_device(name)
    if write_result(spec.model_dump(mode="json"), json_to):
        return
    if as_yaml:
        typer.echo(spec.to_yaml(), nl=False)
    else:
        show(device_page(spec))
        if spec.name == "cpu" and spec.fact("memcpy_1t") is None:
            typer.echo("note: memory and fp32 rates are not measured yet: edgekd devices detect", err=True)


@app.command("detect")
def detect(
    host: Annotated[str | None, typer.Option(help="A board over SSH, such as pi@raspberrypi.local.")] = None,
    name: Annotated[str, typer.Option(help="Of the device; unset: made from board and host.")] = "",
    speed: Annotated[bool, typer.Option(help="Also measure memory and fp32 rates, some 2 s.")] = True,
    add: Annotated[bool, typer.Option("--add", help="Keep it among your devices.")] = False,
    json_to: JsonOption = None,
) -> None:
    """A machine as a device file: this one, or over SSH.

    Nothing is installed or left on the board.
    """
    from edgekd.device import keep_device
    from edgekd.probe import busy_note, detect_device

    if host is None:
        spec = detect_device(name=name, speed=speed)
    else:
        from edgekd.profiles.ssh.script import run_script

        board = host
        spec = detect_device(lambda script: run_script(board, script), where=board, name=name, speed=speed)
    if note := busy_note(spec):
        typer.echo(note, err=True)
    if add:
        path = keep_device(spec)
        typer.echo(f"kept as {path}; use it as --device {spec.name}", err=True)
    if write_result(spec.model_dump(mode="json"), json_to):
        return
    if not add:
        typer.echo(spec.to_yaml(), nl=False)


@app.command("add")
def add(
    file: Annotated[Path, typer.Argument(help="A device file; see: edgekd devices show cpu --yaml")],
    json_to: JsonOption = None,
) -> None:
    """Check a device file and keep it among your devices."""
    from edgekd.device import add_device, left_out

    spec = add_device(file)
    if not write_result(spec.model_dump(mode="json"), json_to):
        typer.echo(f"{spec.name}: added; use it as --device {spec.name}")
        if assumed := left_out(file):
            told = ", ".join(f"{key} {value}" for key, value in assumed.items())
            typer.echo(f"not in the file, so assumed: {told}")
