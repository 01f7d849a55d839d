"""``edgekd devices``: the boards that are known, and the machine at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.emulation import emulate
from edgekd.cli.output import JsonOption, show, write_result

app = typer.Typer(help="Boards: what they are, what their runtime takes, and where each figure comes from.",
                  no_args_is_help=True)  # fmt: skip
app.command("emulate")(emulate)


@app.command("list")
def list_all(json_to: JsonOption = None) -> None:
    """Every device that --device takes."""
    from rich.table import Table

    from edgekd.device import list_devices, load_device

    specs = [load_device(name) for name in list_devices()]
    rows = [
        {"name": s.name, "title": s.title, "runtime": s.runtime, "runtime_version": s.runtime_version,
         "opset_max": s.opset_max, "scheme": s.scheme, "sparse_2to4": s.sparse_2to4}
        for s in specs
    ]  # fmt: skip
    if write_result(rows, json_to):
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("device", "what it is", "runtime", "opset up to", "int8 scheme", "uses 2:4"):
        table.add_column(name)
    for s in specs:
        table.add_row(s.name, s.title, f"{s.runtime} {s.runtime_version}", str(s.opset_max), s.scheme,
                      "yes" if s.sparse_2to4 else "no")  # fmt: skip
    show(table)


@app.command("show")
def show_one(
    name: Annotated[str, typer.Argument(help="A device's name or file.")],
    as_yaml: Annotated[bool, typer.Option("--yaml", help="As a device file.")] = False,
    json_to: JsonOption = None,
) -> None:
    """One device, each fact with its source."""
    from rich.table import Table

    from edgekd.device import load_device

    spec = load_device(name)
    if write_result(spec.model_dump(mode="json"), json_to):
        return
    if as_yaml:
        typer.echo(spec.to_yaml(), nl=False)
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for key, value in spec.model_dump(mode="json", exclude={"facts"}).items():
        table.add_row(key, str(value), "")
    for fact in spec.facts:
        table.add_row(fact.key, f"{fact.value} {fact.unit}".strip(), f"[{fact.source}]", style="dim")
    show(table)


@app.command("detect")
def detect(json_to: JsonOption = None) -> None:
    """The machine at hand, as a device file."""
    from edgekd.device import load_device

    spec = load_device("cpu")
    if not write_result(spec.model_dump(mode="json"), json_to):
        typer.echo(spec.to_yaml(), nl=False)


@app.command("add")
def add(
    file: Annotated[Path, typer.Argument(help="A device file; see: edgekd devices show cpu --yaml")],
) -> None:
    """Check a device file and keep it among your devices."""
    from edgekd.device import add_device

    spec = add_device(file)
    typer.echo(f"{spec.name}: added; use it as --device {spec.name}")
