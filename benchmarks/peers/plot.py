"""A picture of a run: a bar a file, as long as it is faster than fp32; one self-contained SVG."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.peers.row import Row
from edgekd.report.axis import Axis, nice_ticks
from edgekd.report.labels import fit
from edgekd.report.markup import Markup, tag

WIDTH = 760.0
_LEFT, _RIGHT, _ROW, _HEAD = 230.0, WIDTH - 150, 18.0, 30.0
_STYLE = """
svg { background: #fff; font-family: system-ui, sans-serif; font-size: 11.5px; fill: #16181d; }
.bar { fill: #7b8494; } .bar.edgekd { fill: #0f6f5c; }
.bar.foreign { fill-opacity: 0.2; stroke: #7b8494; stroke-dasharray: 3 2; }
.interval { stroke: #16181d; } .grid { stroke: #e3e6eb; } .one { stroke: #b3261e; } .head { font-weight: 600; }
.soft { fill: #5b6270; font-size: 10.5px; }
"""


def speed_picture(rows: Iterable[Row]) -> str | None:
    """None where nothing was measured. Files of another runtime are drawn hollow."""
    models: dict[str, list[Row]] = {}
    for row in rows:
        if row.speedup is not None:
            models.setdefault(row.model, []).append(row)
    if not models:
        return None
    top = max(row.speedup.high for found in models.values() for row in found if row.speedup)
    x = Axis(0.0, max(top * 1.03, 1.1), _LEFT, _RIGHT)
    drawn: list[Markup] = []
    y = 8.0
    for model, found in models.items():
        drawn.append(tag("text", model, x=4, y=y + 16, class_="head"))
        y += _HEAD - 6
        for row in sorted(found, key=lambda row: -(row.speedup.value if row.speedup else 0.0)):
            drawn += _bar(row, x, y)
            y += _ROW
        y += 8
    lines = [
        part
        for value in nice_ticks(0, x.high, 6)
        for part in (
            tag("line", x1=x(value), x2=x(value), y1=8, y2=y, class_="one" if value == 1 else "grid"),
            tag("text", f"{value:g}x", x=x(value), y=y + 14, text_anchor="middle", class_="soft"),
        )
    ]
    if 1.0 not in nice_ticks(0, x.high, 6):
        lines.append(tag("line", x1=x(1.0), x2=x(1.0), y1=8, y2=y, class_="one"))
    foot = "times as fast as fp32 in ONNX Runtime; hollow: another runtime; right: top-1 as fp32, SQNR"
    lines.append(tag("text", foot, x=_LEFT, y=y + 30, class_="soft"))
    return str(
        tag(
            "svg", tag("title", "edgekd and its peers"), tag("style", Markup(_STYLE)), *lines, *drawn,
            viewBox=f"0 0 {WIDTH:.0f} {y + 38:.0f}", xmlns="http://www.w3.org/2000/svg", role="img",
        )
    ) + "\n"  # fmt: skip


def _bar(row: Row, x: Axis, y: float) -> list[Markup]:
    assert row.speedup is not None
    speed, middle = row.speedup, y + 7
    kind = "bar edgekd" if row.peer == "edgekd" else "bar" if row.runtime == "onnxruntime" else "bar foreign"
    agreement = f"{100 * row.agreement:.0f} %" if row.agreement is not None else ""
    quality = f", {row.sqnr_db:.0f} dB" if row.sqnr_db is not None else ""
    return [
        tag("text", fit(row.title, 11.5, _LEFT - 16), x=_LEFT - 6, y=y + 11, text_anchor="end"),
        tag("rect", x=x.start, y=y + 1, width=max(x(speed.value) - x.start, 1.0), height=12, class_=kind),
        tag("line", x1=x(speed.low), x2=x(speed.high), y1=middle, y2=middle, class_="interval"),
        tag("text", f"{speed.value:.2f}x · {agreement}{quality}", x=_RIGHT + 6, y=y + 11, class_="soft"),
    ]
