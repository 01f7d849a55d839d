"""``report.md``: the facts of ``report.json`` as Markdown tables, for a pull request or a wiki."""

from __future__ import annotations

import re

from edgekd.report.curves import curves_caption
from edgekd.report.evidence import (
    float_layers_table,
    guarantees_table,
    origin_table,
    skipped_table,
    stage_notes,
    variants_table,
)
from edgekd.report.facts import all_warnings, device_name
from edgekd.report.format import clean
from edgekd.report.headline import subtitle, tiles, title
from edgekd.report.layers import kept_layers_table, zero_share_table
from edgekd.report.schema import Report
from edgekd.report.schema_deployed import DeployFacts
from edgekd.report.tables import (
    Table,
    deploy_table,
    files_table,
    latency_table,
    operators_table,
    stages_table,
)
from edgekd.report.verdict import verdicts

_SPECIAL = re.compile(r"([\\`*|\[\]])")
_SIGNS = {"bad": "**✕", "warn": "!", "good": "✓", "note": "i"}


def escape_markdown(text: str) -> str:
    """``text`` as literal Markdown: no markup, no HTML, no table cell or line ended early."""
    text = " ".join(clean(text).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", text)


def render_markdown(report: Report) -> str:
    """The whole document. It holds every number of the page except the points of the curves."""
    lines = [f"# {escape_markdown(title(report))}", "", escape_markdown(subtitle(report)), ""]
    for entry in report.deploy:
        if len(report.deploy) > 1:
            lines += [f"{escape_markdown(device_name(entry))}:", ""]
        for tile in tiles(report, entry):
            kind = f" [{tile.kind}]" if tile.kind else ""
            details = "; ".join([tile.alarm, *tile.details] if tile.alarm else tile.details)
            head = f"- {escape_markdown(tile.name + kind)}: **{escape_markdown(tile.value)}**"
            lines.append(f"{head} ({escape_markdown(details)})" if details else head)
        lines.append("")
    for verdict in verdicts(report):
        text = f"{_SIGNS[verdict.level]} {escape_markdown(verdict.text)}"
        lines.append(f"- {text}{'**' if verdict.level == 'bad' else ''}")
    tables = [stages_table(report)]
    lines += ["", *_table(tables[0])]
    for stage in report.stages:
        told = stage_notes(stage) + ([curves_caption(stage)] if stage.history else [])
        lines += [f"- {escape_markdown(stage.name)}: {escape_markdown(note)}" for note in told]
    lines += ["", *_table(kept_layers_table(report)), *_table(zero_share_table(report))]
    lines += ["", *_table(deploy_table(report))]
    for entry in report.deploy:
        for table in (*_tables(report, entry), variants_table(entry), float_layers_table(entry)):
            lines += _table(table)
    for table in (guarantees_table(report), skipped_table(report)):
        lines += _table(table)
    lines += ["## Warnings", ""]
    lines += [f"- {escape_markdown(text)}" for text in all_warnings(report)] or ["None."]
    lines += ["", *_table(origin_table(report))]
    return "\n".join(lines).rstrip() + "\n"


def _tables(report: Report, entry: DeployFacts) -> tuple[Table, ...]:
    return files_table(report, entry), latency_table(report, entry), operators_table(entry)


def _table(table: Table) -> list[str]:
    if not table.rows:
        return []
    head = " | ".join(escape_markdown(column.name) for column in table.columns)
    rule = " | ".join("---:" if column.kind == "number" else "---" for column in table.columns)
    lines = [f"## {escape_markdown(table.title)}", "", f"| {head} |", f"| {rule} |"]
    for row in table.rows:
        lines.append("| " + " | ".join(escape_markdown(cell) for cell in row) + " |")
    return [*lines, ""]
