"""``edgekd compress``: the whole job from a recipe, or from flags over a shipped recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgekd.cli.output import JsonOption, show, write_result

_TEACHER = "timm:NAME[@FILE|@random], torch:FILE.py:FACTORY[@FILE], onnx:FILE, a saved directory."


def compress(
    recipe: Annotated[str | None, typer.Argument(help="A recipe file or a shipped recipe's name.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The run's folder.")] = None,
    teacher: Annotated[str | None, typer.Option(help=_TEACHER)] = None,
    student: Annotated[
        str | None, typer.Option(help="As --teacher, or 'same' for the teacher itself.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Folder, .csv, .jsonl, .parquet, .npz, or builtin:NAME.")
    ] = None,
    device: Annotated[list[str] | None, typer.Option(help="Device name or file; may repeat.")] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="Fail when the deployed file is slower.")
    ] = None,
    max_accuracy_drop: Annotated[
        float | None, typer.Option(help="Fail when top-1 falls further under the teacher; 0.02 is 2 points.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="STAGE.KEY=VALUE", help="Change one setting; may repeat."),
    ] = None,
    json_to: JsonOption = None,
) -> None:
    """Make a trained model smaller and faster for a device.

    Distil, prune, quantize, export, check, measure, report, as the recipe says.

    Several GPUs, or several processes on the CPU: torchrun --nproc-per-node 2 -m edgekd compress ...
    """
    from edgekd.errors import UserInputError, fault

    if out is None:
        raise UserInputError(fault("compress", "where to? is missing", fix="add --out FOLDER"))
    document, where, base = _document(recipe, device)
    cwd = Path.cwd()
    if teacher is not None:
        document["teacher"] = absolute_spec(teacher, cwd)
    if student is not None:
        document["student"] = absolute_spec(student, cwd)
    if data is not None:
        settings = dict(document.get("data") or {})
        settings["path"] = data if data.startswith("builtin:") else str(cwd / Path(data).expanduser())
        document["data"] = settings
    if device:
        document["devices"] = [
            str(cwd / name) if name.endswith((".yaml", ".yml")) else name for name in device
        ]
    limits = {"max_latency_ms": max_latency_ms, "max_accuracy_drop": max_accuracy_drop}
    if any(value is not None for value in limits.values()):
        given = {key: value for key, value in limits.items() if value is not None}
        document["limits"] = {**(document.get("limits") or {}), **given}
    run_recipe(document, where, base, out, resume=resume, overrides=overrides or [], json_to=json_to)


def run_recipe(
    document: dict[str, Any],
    where: str,
    base: Path,
    out: Path,
    *,
    resume: bool,
    overrides: list[str],
    json_to: str | None,
) -> None:
    """Parse, run, print the tables and where the report is."""
    from edgekd.device import load_device
    from edgekd.recipe_file import apply_overrides, parse_recipe

    parsed = parse_recipe(apply_overrides(document, overrides), where=where)
    for name in parsed.devices:
        load_device(name)  # a misspelt device is told before torch is imported
    from edgekd.cli.needs import need_compress

    need_compress()
    from edgekd.cli.progress import progress_bar
    from edgekd.pipeline import compress as run
    from edgekd.report.console import console_report

    with progress_bar() as progress:
        report = run(parsed, out, base=base, resume=resume, progress=progress)
    if report is None:
        return
    if not write_result(report.model_dump(mode="json", by_alias=True), json_to):
        show(console_report(report))
        typer.echo(f"\nreport: {out / 'report.html'}")


def _document(recipe: str | None, devices: list[str] | None) -> tuple[dict[str, Any], str, Path]:
    """The recipe's mapping, the name that messages start with, and the folder that its paths start from."""
    from edgekd.device import load_device
    from edgekd.recipe_file import find_recipe, read_document

    if recipe is None:
        sparse = any(load_device(name).sparse_2to4 for name in devices or [])
        recipe = "jetson-2to4" if sparse else "fast"
    path = find_recipe(recipe)
    return read_document(path), str(path) if path.name != f"{recipe}.yaml" else recipe, path.parent.resolve()


def absolute_spec(spec: str, cwd: Path) -> str:
    """A model given on the command line names files from the current folder, not from the recipe's."""

    def absolute(name: str) -> str:
        return str(cwd / Path(name).expanduser())

    def where_it_exists(name: str) -> str:
        return absolute(name) if Path(absolute(name)).exists() else name

    kind, separator, rest = spec.partition(":")
    if not separator or not rest or kind not in ("timm", "torch", "onnx", "hf"):
        return where_it_exists(spec)
    if kind == "onnx":
        return f"onnx:{absolute(rest)}"
    file, suffix, name = rest.partition(".py:") if kind == "torch" else ("", "", rest)
    body, at, checkpoint = name.partition("@")
    if kind == "hf":
        body = where_it_exists(body)  # else a name on the hub
    if checkpoint and checkpoint != "random":
        checkpoint = absolute(checkpoint)
    return f"{kind}:{absolute(file) if suffix else file}{suffix}{body}{at}{checkpoint}"
