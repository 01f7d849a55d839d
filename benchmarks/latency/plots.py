"""Predicted against published, one SVG for each runtime, one panel for each board. Drawn by hand: small, no package."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from rows import Row

_PANEL, _GAP, _TOP, _COLUMNS = 132, 14, 46, 5
_HEAD = 28  # two lines over each panel: a board's name is longer than its panel is wide
_INK = {"fp32": "#2b6cb0", "fp16": "#2f855a", "int8": "#c05621"}
_STYLE = (
    "text{font:10px sans-serif;fill:#444}.t{font-size:13px;font-weight:bold}.n{font-weight:bold}"
    ".f{fill:none;stroke:#bbb}.d{stroke:#888;fill:none}.b{fill:#8883}path{stroke-width:3.2;stroke-linecap:round;fill:none;opacity:.7}"
)
Plotted = tuple[Row, float, float]


def write_plots(plotted: Sequence[Plotted], folder: Path) -> None:
    """``latency-RUNTIME.svg`` for each public runtime.

    Args:
        plotted: a row, its seconds with its model left out of the fit, its seconds with its board left out.
    """
    groups: dict[str, dict[str, list[Plotted]]] = defaultdict(lambda: defaultdict(list))
    for entry in plotted:
        groups[entry[0].runtime.name.split("-")[0]][entry[0].device].append(entry)
    for runtime, boards in groups.items():
        for name, place, title in (("model", 1, "each model left out"), ("board", 2, "each board left out")):
            text = _figure(runtime, title, boards, place)
            (folder / f"latency-{runtime}-{name}-out.svg").write_text(text, encoding="utf-8")


def _figure(runtime: str, title: str, boards: dict[str, list[Plotted]], place: int) -> str:
    columns = min(_COLUMNS, len(boards))
    lines = -(-len(boards) // columns)
    width = max(columns * (_PANEL + _GAP) + _GAP, 460)
    height = _TOP + lines * (_PANEL + _GAP + _HEAD)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"<style>{_STYLE}</style><rect width='100%' height='100%' fill='#fff'/>",
        f'<text class="t" x="{_GAP}" y="18">{runtime}: predicted over published milliseconds, {title}</text>',
        f'<text x="{_GAP}" y="33">across: published, up: predicted, logarithmic; grey: within 25 %; '
        + " ".join(f'<tspan fill="{ink}">● {name}</tspan>' for name, ink in _INK.items())
        + "</text>",
    ]
    for number, (board, entries) in enumerate(sorted(boards.items())):
        left = _GAP + number % columns * (_PANEL + _GAP)
        top = _TOP + number // columns * (_PANEL + _GAP + _HEAD) + _HEAD
        parts.append(f'<g transform="translate({left} {top})">{_panel(board, entries, place)}</g>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(board: str, entries: Sequence[Plotted], place: int) -> str:
    pairs = [(row.precision, row.ms, float(entry[place]) * 1000) for entry in entries for row in (entry[0],)]
    lowest = math.floor(math.log10(min(min(pair[1:]) for pair in pairs)))
    highest = max(math.ceil(math.log10(max(max(pair[1:]) for pair in pairs))), lowest + 1)
    scale = _PANEL / (highest - lowest)

    def at(ms: float) -> float:
        return (math.log10(ms) - lowest) * scale

    near = math.log10(1.25) * scale
    errors = sorted(abs(predicted / published - 1) for _, published, predicted in pairs)
    half = errors[len(errors) // 2]
    parts = [
        f'<text class="n" y="-15">{board}</text>',
        f'<text y="-3">off by {100 * half:.0f} %, {len(pairs)} row{"s" * (len(pairs) > 1)}</text>',
        f'<rect class="f" width="{_PANEL}" height="{_PANEL}"/>',
        f'<polygon class="b" points="0,{_PANEL} 0,{_PANEL - near:.1f} {_PANEL - near:.1f},0 {_PANEL},0 '
        f'{_PANEL},{near:.1f} {near:.1f},{_PANEL}"/>',
        f'<text x="2" y="{_PANEL - 3}">{10.0**lowest:g}</text>',
        f'<text x="{_PANEL - 2}" y="{_PANEL - 3}" text-anchor="end">{10.0**highest:g} ms</text>',
    ]
    for precision, ink in _INK.items():
        points = [
            f"M{at(published):.0f} {_PANEL - at(predicted):.0f}h0"
            for name, published, predicted in pairs
            if name == precision
        ]
        if points:
            parts.append(f'<path stroke="{ink}" d="{"".join(points)}"/>')
    return "".join(parts)
