"""The report on a terminal: stages, deployed files, verdicts, warnings. Returns it; prints nothing itself."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from edgekd.report.compare import Comparison, comparison_table
from edgekd.report.facts import all_warnings
from edgekd.report.format import clean
from edgekd.report.headline import subtitle, title
from edgekd.report.schema import Report
from edgekd.report.tables import Table, deploy_table, stages_table
from edgekd.report.verdict import verdicts

_STYLES = {"bad": "bold red", "warn": "yellow", "good": "green", "note": "dim"}
_SIGNS = {"bad": "✕", "warn": "!", "good": "✓", "note": "i"}


def console_report(report: Report) -> Group:
    """What ``edgekd report`` and the end of ``edgekd compress`` show."""
    parts: list[RenderableType] = [
        Text(clean(title(report)), style="bold"),
        Text(clean(subtitle(report)), style="dim"),
        Text(),
        rich_table(stages_table(report)),
        Text(),
    ]
    if report.deploy:
        parts += [_sideways(deploy_table(report)), Text()]
    for verdict in verdicts(report):
        parts.append(Text(f"{_SIGNS[verdict.level]} {clean(verdict.text)}", style=_STYLES[verdict.level]))
    if warnings := all_warnings(report):
        parts += [Text(), Text("Warnings", style="bold")]
        parts += [Padding(Text(clean(text)), (0, 0, 0, 2)) for text in warnings]
    return Group(*parts)


def rich_table(table: Table) -> RichTable:
    """Cells as plain text: rich's markup in a user's name stays literal."""
    drawn = RichTable(
        title=Text(table.title), title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    for column in table.columns:
        justify = "right" if column.kind == "number" else "left"
        drawn.add_column(Text(column.name), justify=justify, overflow="fold", header_style="dim")  # type: ignore[arg-type]
    for index, row in enumerate(table.rows):
        style = "bold" if index in table.emphasised else None
        drawn.add_row(
            *(Text(cell, style="yellow" if cell in ("estimated", "emulated") else "") for cell in row),
            style=style,
        )
    return drawn


def _sideways(table: Table) -> RichTable:
    """The table on its side, a column a row: eighty characters are enough."""
    drawn = RichTable(
        title=Text(table.title), title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    drawn.add_column(Text(table.columns[0].name), header_style="dim")
    for row in table.rows:
        drawn.add_column(Text(row[0]), justify="right", overflow="fold", header_style="bold")
    for index, column in enumerate(table.columns[1:], start=1):
        cells = [
            Text(row[index], style="yellow" if row[index] in ("estimated", "emulated") else "")
            for row in table.rows
        ]
        drawn.add_row(Text(column.name, style="dim"), *cells)
    return drawn


def console_comparison(comparison: Comparison) -> Group:
    """The runs as columns: facts go down, so that three runs fit into eighty characters."""
    parts: list[RenderableType] = [_sideways(comparison_table(comparison))]
    parts += [Text(f"! {clean(text)}", style=_STYLES["warn"]) for text in comparison.warnings]
    return Group(*parts)
