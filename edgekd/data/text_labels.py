"""From what a text table says in its label column to class numbers, or to 0 and 1 for several labels a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekd.data.labels import number_labels
from edgekd.errors import DataError, fault

SEPARATORS = ("|", ";", ",")


@dataclass(frozen=True)
class Labels:
    """Attributes:
    numbers: int64 ``(n,)``; with several labels a text, its rarest one.
    targets: float32 ``(n, classes)`` of 0 and 1, or None with one label a text.
    """

    numbers: np.ndarray
    classes: tuple[str, ...]
    targets: np.ndarray | None = None


def read_labels(
    values: Sequence[Any], spots: Sequence[str], *, names: tuple[str, ...], separator: str | None, where: str
) -> Labels:
    """Label cells as classes.

    Args:
        values: text, numbers, or lists of them (several labels); None and "" are gaps.
        spots: each row's name, for messages.
        names: the classes, where the file names them: labels are then numbers.
        separator: between several labels in one cell.

    Raises:
        DataError: a row without a label, a number that is no class, or single labels beside lists.
    """
    several = separator is not None or any(isinstance(value, (list, tuple)) for value in values)
    cells: list[list[str]] = []
    gaps = []
    for value, spot in zip(values, spots, strict=True):
        if several:
            cells.append([_name(part, names, spot) for part in _parts(value, separator, spot)])
        elif value is None or value == "" or value != value or (names and value == -1):
            gaps.append(spot)
        else:
            cells.append([_name(value, names, spot)])
    if gaps:
        what = f"{len(gaps)} of {len(values)} rows have no label, the first is {gaps[0]}"
        raise DataError(fault(where, what, fix="fill them in, remove the rows, or set data.labels: false"))
    if not several:
        texts = [cell[0] for cell in cells]
        if not names:
            return Labels(*number_labels(texts))
        number = {name: position for position, name in enumerate(names)}
        return Labels(np.array([number[text] for text in texts], np.int64), names)
    classes = names or number_labels([name for cell in cells for name in cell])[1]
    return _several(cells, classes)


def hidden_separator(classes: Sequence[str]) -> tuple[str, str] | None:
    """The separator that seems to stand in class names, with such a name: ``a|b`` where ``a`` is a class as well."""
    known = set(classes)
    for separator in SEPARATORS:
        for name in classes:
            if separator in name and any(part.strip() in known for part in name.split(separator)):
                return separator, name
    return None


def _several(cells: list[list[str]], classes: tuple[str, ...]) -> Labels:
    number = {name: position for position, name in enumerate(classes)}
    targets = np.zeros((len(cells), len(classes)), np.float32)
    for row, cell in zip(targets, cells, strict=True):
        row[[number[name] for name in cell]] = 1
    counts = targets.sum(axis=0)
    rarest = np.where(targets > 0, counts, np.inf).argmin(axis=1) if len(classes) else np.zeros(len(cells))
    return Labels(rarest.astype(np.int64), classes, targets)


def _parts(value: Any, separator: str | None, spot: str) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return list(value)
    if separator is not None:
        return [part.strip() for part in str(value).split(separator) if part.strip()]
    raise DataError(
        fault(spot, "one label where other rows have a list", got=value, fix="write it as a list")
    )


def _name(value: Any, names: tuple[str, ...], spot: str) -> str:
    if names:
        if isinstance(value, int) and 0 <= value < len(names):
            return names[value]
        if isinstance(value, str) and value in names:
            return value
        raise DataError(fault(spot, "not a class", got=value, allowed=f"0 to {len(names) - 1}"))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # whole numbers become floats where a column has gaps
    if isinstance(value, (str, int, float)):
        return str(value).strip()
    raise DataError(fault(spot, "not a label", got=value, allowed="text, a number, or a list of them"))
