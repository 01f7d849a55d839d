"""Numbers and names as text, the same in the page, in Markdown and on the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

MISSING = "–"
# C0 and C1 controls (a terminal would obey them) and the marks that reverse the direction of text.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def clean(text: str) -> str:
    """``text`` on one line, without control characters: names come from users and from files."""
    return _CONTROL.sub("\ufffd", " ".join(text.split()) if "\n" in text or "\t" in text else text)


def percent(fraction: float | None, digits: int = 2) -> str:
    """``0.9231`` as ``92.31%``. Never rounded up to 100 % or down to 0 %: those are claims."""
    if fraction is None:
        return MISSING
    text = f"{100 * fraction:.{digits}f}"
    step = 10.0**-digits
    if fraction < 1 and float(text) >= 100:
        return f">{100 - step:.{digits}f}%"
    if fraction > 0 and float(text) <= 0:
        return f"<{step:.{digits}f}%"
    return ("100" if fraction == 1 else text) + "%"


def points(difference: float | None) -> str:
    """A difference of fractions as signed percentage points: ``−1.24``."""
    if difference is None:
        return MISSING
    rounded = round(100 * difference, 2)
    return "±0.00" if rounded == 0 else f"{'+' if rounded > 0 else '−'}{abs(rounded):.2f}"


def significant(value: float, digits: int = 3) -> str:
    """Decimal notation with ``digits`` significant digits: ``0.0412``, ``4.12``, ``412``, ``41,234``."""
    if value == 0:
        return "0"
    decimals = 0
    magnitude = abs(float(f"{value:.{digits - 1}e}"))  # rounded first: 0.9996 has the decimals of 1.00
    while decimals < 9 and magnitude < 10 ** (digits - 1):
        magnitude *= 10
        decimals += 1
    return f"{value:,.{decimals}f}"


def milliseconds(value_ms: float | None, kind: str = "measured") -> str:
    """``0.412 ms``; what is not measured starts with ``~``."""
    if value_ms is None:
        return MISSING
    return f"{'' if kind == 'measured' else '~'}{significant(value_ms)} ms"


def span(low: float, high: float) -> str:
    """``0.303 … 0.337``, kept on one line."""
    return f"{significant(low)}\u00a0…\u00a0{significant(high)}"


def byte_count(count: float | None) -> str:
    """Decimal units: ``148 kB`` is 148,000 bytes."""
    if count is None:
        return MISSING
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.5 or unit == "GB":
            break
    return f"{significant(count)} {unit}"


def quantity(count: int | None) -> str:
    """A count of parameters or operations: ``94,410``, ``2.24 M``, ``1.81 G``."""
    if count is None:
        return MISSING
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if count >= size:
            return f"{significant(count / size)} {unit}"
    return f"{count:,}"


def duration(seconds: float | None) -> str:
    """``4.2 s``, ``3 min 08 s``, ``2 h 05 min``."""
    if seconds is None:
        return MISSING
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def ratio(value: float | None) -> str:
    """``6.82×``. Never rounded up to 1 from below."""
    if value is None:
        return MISSING
    text = f"{value:.1f}" if value >= 20 else f"{value:.2f}"
    return "<1.00×" if value < 1 <= float(text) else f"{text}×"


def compact(value: float) -> str:
    """A round number, such as an axis tick, without trailing zeros: ``0.2``, ``5``, ``20,000``."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def compact_bytes(count: float) -> str:
    """A round number of bytes: ``500 kB``, ``2 MB``."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{compact(count / size)} {unit}"
    return f"{compact(count)} B"


def plural(count: int, noun: str) -> str:
    """``1 layer``, ``3 layers``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listing(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(([", ".join(names[:-1])] if len(names) > 1 else []) + list(names[-1:]))


def weights_kind(scheme: str | None) -> str:
    """The first words of a weight-only scheme: ``int4 weights``."""
    return clean((scheme or "weights").partition(" in ")[0])
