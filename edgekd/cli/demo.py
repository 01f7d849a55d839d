"""``edgekd demo``: the product on Fashion-MNIST, with the teacher that ships with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.output import JsonOption


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="The run's folder.")] = Path("edgekd-demo"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="STAGE.KEY=VALUE", help="Change one setting; may repeat."),
    ] = None,
    json_to: JsonOption = None,
) -> None:
    """The whole product on a small net, in minutes.

    Distil, prune 2:4, quantize, export and measure, for this machine.
    """
    from edgekd.cli.compress import run_recipe
    from edgekd.recipe_file import find_recipe, read_document

    path = find_recipe("demo")
    run_recipe(
        read_document(path),
        "demo",
        path.parent,
        out,
        resume=resume,
        overrides=overrides or [],
        json_to=json_to,
    )
