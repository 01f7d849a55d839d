"""HTML and SVG elements that cannot be injected into: text is escaped unless it is :class:`Markup`."""

from __future__ import annotations

import html

from edgekd.report.format import clean


class Markup(str):
    """Finished HTML or SVG. Made by :func:`tag`, never from a user's text."""

    __slots__ = ()


_CAMEL = frozenset({"viewBox", "patternUnits"})
_VOID = frozenset({"meta", "br", "hr", "img"})
_SELF_CLOSING = frozenset({"rect", "circle", "line", "path", "polyline"})


def escape(text: object) -> Markup:
    """``text`` for element content or a quoted attribute; control characters become U+FFFD."""
    return text if isinstance(text, Markup) else Markup(html.escape(clean(str(text)), quote=True))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """``<name attributes>children</name>``; ``class_`` is ``class``, ``text_anchor`` is ``text-anchor``.

    >>> tag("td", "<b>", class_="number")
    '<td class="number">&lt;b&gt;</td>'
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None:  # left out
            continue
        if isinstance(value, float):
            value = f"{value:.2f}".rstrip("0").rstrip(".")
        key = key.rstrip("_")
        key = key if key in _CAMEL else key.replace("_", "-")
        parts.append(f'{key}="{html.escape(clean(str(value)), quote=True)}"')
    start = " ".join(parts)
    if name in _SELF_CLOSING and not children:
        return Markup(f"<{start}/>")
    if name in _VOID:
        return Markup(f"<{start}>")
    return Markup(f"<{start}>{join(*children)}</{name}>")


def join(*children: object) -> Markup:
    """Several children as one; ``None`` is left out."""
    return Markup("".join(escape(child) for child in children if child is not None))
