"""The rows for a reader: in the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from benchmarks.peers.row import Row, Speed

HEADINGS = ("peer", "version", "top-1 as fp32", "SQNR dB", "max diff", "MB", "p50 ms", "over fp32", "edgekd is",
            "integer", "2:4", "seconds")  # fmt: skip
_NONE = "–"


def cells(row: Row) -> tuple[str, ...]:
    """One row's cells; a row that failed has its reason instead, see :func:`rich_table`."""
    integer = _NONE
    if row.integer_ops is not None and row.float_ops is not None:
        integer = f"{row.integer_ops}/{row.integer_ops + row.float_ops}"
    zeros = _NONE if row.violations is None else "holds" if not row.violations else f"{row.violations} bad"
    return (
        _title(row), row.version or _NONE, _number(row.agreement, 1, 100, " %"), _number(row.sqnr_db, 1),
        _number(row.max_abs_diff, 3), _number(row.size_bytes, 2, 1e-6), _number(row.p50_ms, 2),
        _speed(row.speedup), _speed(row.edgekd_speedup), integer, zeros, _number(row.quantize_s, 1),
    )  # fmt: skip


def rich_table(model: str, rows: Iterable[Row]) -> Table:
    """One model's rows, the fastest file first, failures last with their reasons across the columns."""
    found = ordered(rows)
    fp32 = next((row.fp32_p50_ms for row in found if row.fp32_p50_ms), None)
    table = Table(title=f"{model}, fp32 {fp32:.2f} ms" if fp32 else model, title_justify="left")
    for position, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if position < 2 else "right", overflow="fold")
    for row in found:
        if row.reason is None:
            table.add_row(*map(Text, cells(row)))
    for row in found:
        if row.reason is not None:
            table.add_row(Text(_title(row)), row.version or _NONE, row.status, style="dim")
    table.caption = Text("\n".join(f"{row.title}: {row.reason}" for row in found if row.reason))
    table.caption_justify = "left"
    return table


def markdown_table(model: str, rows: Iterable[Row]) -> str:
    found = ordered(rows)
    lines = [_line(HEADINGS), _line(["---"] * 2 + ["---:"] * (len(HEADINGS) - 2))]
    lines += [_line(cells(row)) for row in found if row.reason is None]
    failed = [
        f"- {_title(row)} {row.version or ''}".rstrip() + f": {row.status}: {row.reason}"
        for row in found
        if row.reason
    ]
    fp32 = next((row.fp32_p50_ms for row in found if row.fp32_p50_ms), None)
    head = f"### {model}" + (f", fp32 {fp32:.2f} ms" if fp32 else "")
    return "\n".join([head, "", *lines, *(["", "No file:", "", *failed] if failed else [])]) + "\n"


def ordered(rows: Iterable[Row]) -> list[Row]:
    """The fastest first; what was not measured, then what failed, at the end."""
    return sorted(
        rows, key=lambda row: (row.reason is not None, row.p50_ms is None, row.p50_ms or 0.0, row.peer)
    )


def _title(row: Row) -> str:
    return row.title if row.runtime == "onnxruntime" else f"{row.title} [other runtime]"


def _line(texts: Iterable[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def _number(value: float | None, digits: int, factor: float = 1.0, unit: str = "") -> str:
    return _NONE if value is None else f"{value * factor:.{digits}f}{unit}"


def _speed(speed: Speed | None) -> str:
    return _NONE if speed is None else f"{speed.value:.2f}x ({speed.low:.2f}–{speed.high:.2f})"
