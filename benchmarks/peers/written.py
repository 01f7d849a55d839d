"""What a run leaves: ``peers.json``, ``peers.md`` and ``peers.svg``, and the table in the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from benchmarks.peers.accuracy import markdown_accuracy
from benchmarks.peers.plot import speed_picture
from benchmarks.peers.row import Result
from benchmarks.peers.summary import markdown_summary
from benchmarks.peers.table import markdown_table, rich_table
from edgekd.artifact import write_json, write_text


def write_result(result: Result, out: Path) -> None:
    """All three files, and the last model's table to standard output.

    Raises:
        OutputError: ``out`` cannot be written.
    """
    write_json(out / "peers.json", result.model_dump(mode="json"))
    write_text(out / "peers.md", markdown(result))
    if (picture := speed_picture(result.rows)) is not None:
        write_text(out / "peers.svg", picture)
    last = result.models[-1]["model"]
    Console(width=190).print(rich_table(last, [row for row in result.rows if row.model == last]))


def markdown(result: Result) -> str:
    """Conditions, edgekd against the best peer of each model, then a table a model."""
    facts = result.conditions
    vnni = "yes" if facts["vnni"] else "no"
    lines = [
        f"{facts['cpu']}, {facts['cores']} cores, VNNI {vnni}; {facts['threads']} thread(s); {facts['date']}; "
        f"seed {facts['seed']}; {facts['calibration']} calibration and {facts['comparison']} comparison samples "
        f"({facts['photos']}); {facts['rounds']} interleaved rounds of {facts['runs']} runs.",
        "",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in facts["versions"].items()) + ".",
        "",
        markdown_summary(result.rows),
        markdown_accuracy(result.models, result.rows),
    ]
    for model in result.models:
        name = model["model"]
        lines.append(markdown_table(name, [row for row in result.rows if row.model == name]))
        lines.append(
            f"Weights: {model['weights']}; fp32 {model['fp32_bytes'] / 1e6:.2f} MB; the fp32 file sees "
            f"{model['distinct_top1']} different classes in the samples.\n"
        )
    return "\n".join(lines)
