"""``edgekd report``: show a run again, and draw its pages anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.output import JsonOption, show, write_result


def report(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    json_to: JsonOption = None,
) -> None:
    """Print a run's tables and write its pages again.

    report.html and report.md, from report.json.
    """
    from edgekd.report import load_report, render_run
    from edgekd.report.console import console_report

    loaded = load_report(run)
    page, _ = render_run(run)
    if not write_result(loaded.model_dump(mode="json", by_alias=True), json_to):
        show(console_report(loaded))
        typer.echo(f"\nreport: {page}")
