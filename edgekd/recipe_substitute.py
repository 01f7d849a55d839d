"""Which activations a recipe may exchange for which, where a stage trains behind it. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

QUICK_GELU = "quick-gelu"
# What costs time in integers, and what may stand in its place, from the nearest to the fastest.
SUBSTITUTES = {
    "silu": ("relu", "relu6", "hardswish"),
    "gelu": (QUICK_GELU, "relu", "relu6", "hardswish"),
    "hardswish": ("relu", "relu6"),
}
_FOR_ALL = ("relu", "relu6", "hardswish")
_KNOWN = "; ".join(f"{name}: {', '.join(others)}" for name, others in SUBSTITUTES.items())


def _known(value: Any) -> Any:
    if isinstance(value, str) and value in _FOR_ALL:
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"neither one of {', '.join(_FOR_ALL)} for all, nor a mapping ({_KNOWN})")
    for old, new in value.items():
        if new not in SUBSTITUTES.get(old, ()):
            raise ValueError(f"{old} cannot become {new}; there are {_KNOWN}")
    return dict(value)


Substitute = Annotated[str | dict[str, str], BeforeValidator(_known)]


def pairs(wanted: str | Mapping[str, str]) -> dict[str, str]:
    """Old to new; one name alone stands in the place of all that it can replace."""
    if isinstance(wanted, str):
        return {old: wanted for old, others in SUBSTITUTES.items() if wanted in others}
    return dict(wanted)
