"""A scatter picture with a logarithmic x axis: every dot is labelled where it stands."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from edgekd.report.axis import Axis, log_range, log_ticks, nice_ticks, score_range
from edgekd.report.format import clean
from edgekd.report.labels import Box, Point, place, shorten, text_width
from edgekd.report.markup import Markup, join, tag

WIDTH, HEIGHT, FONT = 380.0, 290.0, 11.5
_TICK = 10.5  # font size of an axis's numbers, as in style.css
_FRAME = Box(54, 24, WIDTH - 8, HEIGHT - 40)


@dataclass(frozen=True)
class Mark:
    """One dot.

    Attributes:
        x: bytes or milliseconds, positive.
        y: a fraction.
        role: the CSS class: ``teacher``, ``student``, ``stage`` or ``deployed``.
        note: what stands beside the name.
        radius: pixels.
        span: low and high of ``x``.
        estimated: drawn hollow and dashed.
    """

    x: float
    y: float
    name: str
    role: str
    note: str
    radius: float = 5.0
    span: tuple[float, float] | None = None
    estimated: bool = False


def scatter(
    marks: Sequence[Mark],
    title: str,
    y_title: str,
    x_title: str,
    x_text: Callable[[float], str],
    way: Sequence[Mark],
) -> Markup:
    """``x_text`` writes a tick of the x axis; ``way`` are marks that a dashed line joins, in order."""
    values = [mark.x for mark in marks] + [end for mark in marks for end in (mark.span or ())]
    x = Axis(*log_range(values), _FRAME.left, _FRAME.right, log=True)
    y = Axis(*score_range([mark.y for mark in marks]), _FRAME.bottom, _FRAME.top)
    circles = [
        Point(
            x(mark.x),
            min(y(mark.y), _FRAME.bottom - mark.radius),
            mark.radius,
            _label(mark, below=mark.y < y.low),
        )
        for mark in marks
    ]
    where = {id(mark): point for mark, point in zip(marks, circles, strict=True)}
    lines = [
        tag("line", x1=where[id(a)].x, y1=where[id(a)].y, x2=where[id(b)].x, y2=where[id(b)].y, class_="way")
        for a, b in pairwise(way)
    ]
    dots = []
    for mark, point in zip(marks, circles, strict=True):
        if mark.span is not None:
            dots.append(
                tag(
                    "line",
                    x1=x(mark.span[0]),
                    x2=x(mark.span[1]),
                    y1=point.y,
                    y2=point.y,
                    class_=f"span {mark.role}",
                )
            )
        kind = f"mark {mark.role}{' estimated' if mark.estimated else ''}"
        dots.append(
            tag("circle", tag("title", point.text), cx=point.x, cy=point.y, r=mark.radius, class_=kind)
        )
    texts: list[Markup] = []
    frame = Box(_FRAME.left + 2, _FRAME.top, WIDTH, _FRAME.bottom - 2)
    for label in place(circles, frame, FONT, _obstacles(marks, circles, way, x)):
        if label.leader:
            end = min(max(label.point.x, label.box.left), label.box.right)
            middle = (label.box.top + label.box.bottom) / 2
            texts.append(tag("line", x1=label.point.x, y1=label.point.y, x2=end, y2=middle, class_="leader"))
        texts.append(
            tag("text", label.point.text, x=label.x, y=label.y, text_anchor=label.anchor, class_="label")
        )
    grid = _grid(x, y, x_text, y_title, x_title)
    return tag(
        "svg", tag("title", title), grid, *lines, *dots, *texts,
        viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}", role="img", class_="picture",
    )  # fmt: skip


def _obstacles(marks: Sequence[Mark], circles: Sequence[Point], way: Sequence[Mark], x: Axis) -> list[Box]:
    """What a label should not cover besides circles: the ranges, and the way between stages in pieces."""
    found = [
        Box(x(mark.span[0]), point.y - 2, x(mark.span[1]), point.y + 2)
        for mark, point in zip(marks, circles, strict=True)
        if mark.span is not None
    ]
    where = {id(mark): point for mark, point in zip(marks, circles, strict=True)}
    for start, end in pairwise(where[id(mark)] for mark in way):
        pieces = max(1, round(math.hypot(end.x - start.x, end.y - start.y) / 8))
        for step in range(pieces + 1):
            at_x = start.x + (end.x - start.x) * step / pieces
            at_y = start.y + (end.y - start.y) * step / pieces
            found.append(Box(at_x - 1, at_y - 1, at_x + 1, at_y + 1))
    return found


def _label(mark: Mark, *, below: bool) -> str:
    return f"{shorten(clean(mark.name), 20)}, {mark.note}{' ↓' if below else ''}"


def _grid(x: Axis, y: Axis, x_text: Callable[[float], str], y_title: str, x_title: str) -> Markup:
    parts = []
    ticks = [value for value in nice_ticks(y.low, y.high, 5) if value <= 1]
    # As few digits as tell every tick exactly: 52.5 and 47.5 are no whole percents.
    digits = next((d for d in (0, 1) if all(math.isclose(round(100 * v, d), 100 * v) for v in ticks)), 2)
    for value in ticks:
        parts.append(tag("line", x1=_FRAME.left, x2=_FRAME.right, y1=y(value), y2=y(value), class_="grid"))
        parts.append(
            tag(
                "text",
                f"{100 * value:.{digits}f}%",
                x=_FRAME.left - 6,
                y=y(value) + 4,
                text_anchor="end",
                class_="tick",
            )
        )
    for value in log_ticks(x.low, x.high):
        parts.append(
            tag("line", x1=x(value), x2=x(value), y1=_FRAME.bottom, y2=_FRAME.bottom + 4, class_="axis")
        )
        text = x_text(value)
        middle = min(x(value), WIDTH - text_width(text, _TICK) / 2)  # the last one stays on the picture
        parts.append(tag("text", text, x=middle, y=_FRAME.bottom + 17, text_anchor="middle", class_="tick"))
    parts.append(
        tag("line", x1=_FRAME.left, x2=_FRAME.right, y1=_FRAME.bottom, y2=_FRAME.bottom, class_="axis")
    )
    centre = (_FRAME.left + _FRAME.right) / 2
    parts.append(tag("text", x_title, x=centre, y=HEIGHT - 6, text_anchor="middle", class_="axis-title"))
    parts.append(tag("text", y_title, x=0, y=11, class_="axis-title"))
    return join(*parts)
