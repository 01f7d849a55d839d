"""From what a table or an array says about a sample to a class number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def _whole(text: str) -> bool:
    return text.removeprefix("-").isdigit()


def number_labels(values: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class numbers int64 ``(n,)`` and class names: in text order, or by value if all are whole numbers."""
    names = set(values)
    ordered = sorted(names, key=int) if all(map(_whole, names)) else sorted(names)
    number = {name: position for position, name in enumerate(ordered)}
    return np.array([number[value] for value in values], np.int64), tuple(ordered)
