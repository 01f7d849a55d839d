"""Another library's exception as a short phrase, for use inside one of our one-line messages."""

from __future__ import annotations

_LIMIT = 200


def brief(error: BaseException) -> str:
    """``"ValueError: first line of its message"``, at most 200 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= _LIMIT else text[: _LIMIT - 3] + "..."
