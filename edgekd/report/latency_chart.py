"""Where the milliseconds lie: p50, p90, p99 and the range over rounds, a row a file and thread count."""

from __future__ import annotations

from edgekd.report.axis import Axis, nice_ticks
from edgekd.report.facts import files_of
from edgekd.report.format import compact, milliseconds, plural
from edgekd.report.labels import fit, text_width
from edgekd.report.markup import Markup, tag
from edgekd.report.schema import Report
from edgekd.report.schema_deployed import DeployFacts, LatencyFacts

WIDTH = 380.0
_FONT, _SMALL = 11.5, 10.5
_ROW, _TOP, _FOOT = 46.0, 4.0, 36.0
_LEFT, _RIGHT = 4.0, WIDTH - 14
_CLIP = 2.0
"""The axis ends at this many times the slowest p50: one p99 spike must not squeeze every bar."""


def latency_chart(report: Report, entry: DeployFacts) -> Markup | None:
    """``None`` where nothing was measured or estimated. Whatever was not measured is hatched and says so."""
    rows = [(file.role, file.label, row) for file in files_of(report, entry) for row in file.latency]
    if not rows:
        return None
    rows.sort(key=lambda item: (item[2].threads, item[2].batch))
    slowest = max(row.p50_ms for _, _, row in rows)
    ends = [
        value for _, _, row in rows for value in (row.p99_ms, row.p90_ms, row.high_ms) if value is not None
    ]
    x = Axis(0.0, min(max([slowest, *ends]) * 1.02, slowest * _CLIP), _LEFT, _RIGHT)
    bottom = _TOP + _ROW * len(rows)
    drawn: list[Markup] = []
    for value in nice_ticks(0, x.high, 4):
        drawn.append(tag("line", x1=x(value), x2=x(value), y1=_TOP, y2=bottom, class_="grid"))
        anchor = "start" if value == 0 else "middle"
        drawn.append(
            tag("text", compact(value), x=x(value), y=bottom + 14, text_anchor=anchor, class_="tick")
        )
    for index, (role, label, row) in enumerate(rows):
        drawn += _row(role, label, row, x, _TOP + _ROW * index)
    drawn.append(tag("text", "ms", x=_RIGHT, y=bottom + 29, text_anchor="end", class_="axis-title"))
    title = tag("title", f"latency on {entry.device}")
    return tag(
        "svg", title, *drawn, viewBox=f"0 0 {WIDTH:.0f} {bottom + _FOOT:.0f}", role="img", class_="picture"
    )


def _row(role: str, label: str, row: LatencyFacts, x: Axis, top: float) -> list[Markup]:
    middle = top + 30
    hatched = "" if row.kind == "measured" else " estimated"
    conditions = (
        plural(row.threads, "thread") + (f", batch {row.batch}" if row.batch != 1 else "") + f" · {row.kind}"
    )
    value = milliseconds(row.p50_ms, row.kind)
    room = _RIGHT - _LEFT - text_width(conditions, _SMALL) - text_width(value, _FONT) - 24
    name = tag(
        "text",
        tag("tspan", fit(label, _FONT, room), class_="name"),
        tag("tspan", conditions, dx=8, class_="tick"),
        x=_LEFT, y=top + 16, class_="label",
    )  # fmt: skip
    parts = [name, tag("text", value, x=_RIGHT, y=top + 16, text_anchor="end", class_="label name")]
    width = max(x(row.p50_ms) - x.start, 1.5)
    parts.append(
        tag("rect", x=x.start, y=middle - 5, width=width, height=10, rx=1.5, class_=f"bar {role}{hatched}")
    )
    tail = max(value for value in (row.p50_ms, row.p90_ms, row.p99_ms) if value is not None)
    if tail > row.p50_ms:
        end = min(x(tail), x.end)
        parts.append(tag("line", x1=x(row.p50_ms), x2=end, y1=middle, y2=middle, class_=f"tail {role}"))
        for percentile in (row.p90_ms, row.p99_ms):
            if percentile is not None and percentile <= x.high:
                at = x(percentile)
                parts.append(tag("line", x1=at, x2=at, y1=middle - 4, y2=middle + 4, class_=f"tail {role}"))
        if tail > x.high:
            parts.append(tag("path", d=f"M{end:.1f} {middle - 4:.1f}l6 4l-6 4z", class_=f"beyond {role}"))
    if row.low_ms is not None and row.high_ms is not None:
        low, high = x(row.low_ms), min(x(row.high_ms), x.end)
        parts.append(tag("rect", x=low, y=middle + 7, width=max(high - low, 1.5), height=3, class_="range"))
    return parts
