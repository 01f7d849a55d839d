"""``edgekd compare``: several runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.output import JsonOption, show, write_result


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or report.json files.")],
    json_to: JsonOption = None,
) -> None:
    """What several runs deployed, side by side.

    Accuracy, size and latency, and why some of them may not be compared.
    """
    from edgekd.report.compare import compare_runs
    from edgekd.report.console import console_comparison

    comparison = compare_runs(runs)
    if not write_result(comparison.as_json(), json_to):
        show(console_comparison(comparison))
