"""Direct labels that do not overlap: each goes to the nearest free place around its point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Anchor = Literal["start", "middle", "end"]
_NARROW, _WIDE = frozenset("iljtfrI.,:;|!'()[]/ -"), frozenset("mwMW@%~×")
_DIRECTIONS = (0, 180, 270, 90, 315, 225, 45, 135, 290, 250, 20, 160, 340, 200, 70, 110)


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )

    def inside(self, frame: Box) -> bool:
        return (
            self.left >= frame.left and self.right <= frame.right
            and self.top >= frame.top and self.bottom <= frame.bottom
        )  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A labelled circle; a point of radius 0 is an obstacle without a circle."""

    x: float
    y: float
    radius: float
    text: str


@dataclass(frozen=True)
class Label:
    """``x``/``y``: the text's anchor on its baseline; ``leader``: it stands away from its point."""

    point: Point
    x: float
    y: float
    anchor: Anchor
    box: Box
    leader: bool


def text_width(text: str, size: float) -> float:
    """Pixels that ``text`` takes in a common sans-serif face at font size ``size``: an upper estimate."""
    ems = 0.0
    for char in text:
        if char in _NARROW:
            ems += 0.36
        elif char in _WIDE:
            ems += 0.92
        elif ord(char) > 0x2E7F:
            ems += 1.05
        else:
            ems += 0.70 if char.isupper() else 0.59
    return ems * size


def shorten(text: str, limit: int) -> str:
    """At most ``limit`` characters; the middle goes first, the ends of a name tell most."""
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def fit(text: str, size: float, width: float) -> str:
    """``text``, shortened until it takes at most ``width`` pixels."""
    limit = len(text)
    while limit > 3 and text_width(shorten(text, limit), size) > width:
        limit -= 1
    return shorten(text, limit)


def place(points: Sequence[Point], frame: Box, size: float, avoid: Sequence[Box] = ()) -> list[Label]:
    """A label for each point, in the order of ``points``, inside ``frame``, none over another.

    Covering a circle, or one of ``avoid``, is possible but costs. A point whose label fits nowhere has none.
    """
    circles = [Box(p.x - p.radius, p.y - p.radius, p.x + p.radius, p.y + p.radius) for p in points]
    placed: dict[int, Label] = {}
    for index in sorted(range(len(points)), key=lambda i: (-points[i].radius, points[i].y)):
        best: tuple[float, Label] | None = None
        for rank, label in enumerate(_candidates(points[index], size)):
            if not label.box.inside(frame) or any(label.box.overlaps(other.box) for other in placed.values()):
                continue
            covered = sum(label.box.overlaps(c) for i, c in enumerate(circles) if i != index or label.leader)
            crossed = sum(label.box.overlaps(box) for box in avoid)
            cost = rank + 25 * covered + 12 * min(crossed, 3)
            if best is None or cost < best[0]:
                best = (cost, label)
        if best is not None:
            placed[index] = best[1]
    return [placed[index] for index in sorted(placed)]


def _candidates(point: Point, size: float) -> list[Label]:
    """Right, left, above, below, the diagonals; then the same further and further out."""
    width, height = text_width(point.text, size), size * 1.2
    found = []
    for ring, gap in enumerate((4.0, 12.0, 22.0, 36.0, 54.0, 76.0, 102.0)):
        for degrees in _DIRECTIONS:
            angle = math.radians(degrees)
            cosine, sine = math.cos(angle), math.sin(angle)
            x = point.x + (point.radius + gap) * cosine
            middle = point.y + (point.radius + gap) * sine + sine * height / 2
            anchor: Anchor = "middle" if abs(cosine) < 0.3 else "start" if cosine > 0 else "end"
            left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
            box = Box(left, middle - height / 2, left + width, middle + height / 2)
            found.append(Label(point, x, middle + size * 0.35, anchor, box, leader=ring > 0))
    return found
