"""What published networks alike were off by, after the fit: a correction that fades with the distance between networks.

A Gaussian process over the residuals of fitted rows (Rasmussen and Williams, "Gaussian Processes for Machine Learning",
2006, chapter 2). Rows of the same runtime count, those of the same board more, another precision half. Where nothing
alike was published the correction is zero.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from edgekd.profiles.estimation.op_table import FREE, PRODUCTS, Floats, OpTable
from edgekd.profiles.estimation.operators import FAMILIES

# Chosen on the half of boards and families that was named for choosing (benchmarks/latency/choose.py).
_EVERYWHERE, _SAME_BOARD = 0.01, 0.04  # variances of log time
_REACH_EVERYWHERE, _REACH_SAME_BOARD = 0.05, 0.1  # of squared distances between shares of time
_REACH_SIZE = 8.0  # of squared logarithms of size
_OTHER_PRECISION = 0.5
NOISE = 0.1  # standard deviation of a row's log time

# Multiples of the ideal time that operators of a family usually take; 1.5 for products and 2 for others.
_USUAL = {
    "conv-depthwise": 5.0, "conv-grouped": 2.5, "conv-first": 1.8, "conv-dense-3x3": 1.2, "gemm": 2.0, "attention": 2.0,
    "recurrent": 3.0, "activation-expensive": 6.0, "softmax": 10.0, "norm": 6.0, "resize": 4.0, "transpose": 4.0,
}  # fmt: skip
_NODE = 1500.0  # cycles


@dataclass(frozen=True)
class Likeness:
    """Where a row stands. ``place``: board and runtime; ``look``: see :func:`look_of`."""

    runtime: str
    place: str
    precision: str
    look: Floats


@dataclass(frozen=True)
class Alike:
    """Fitted rows as columns, with what each adds per unit of likeness."""

    rows: Sequence[Likeness]
    weights: Floats

    def correction(self, case: Likeness) -> float:
        """Logarithm by which such a case takes longer than the parameters say."""
        if not self.rows:
            return 0.0
        return float(likeness([case], self.rows)[0] @ self.weights)


def look_of(table: OpTable) -> Floats:
    """A network whatever it runs on: the square roots of its families' shares of time on a plain core, and its size."""
    products = np.isin(FAMILIES, PRODUCTS)
    usual = np.asarray([_USUAL.get(name, 1.5 if name in PRODUCTS else 2.0) for name in FAMILIES])
    usual[np.isin(FAMILIES, FREE)] = 0.0
    moved = (table.inputs + table.outputs) * np.where(products[table.family], 1 / 8, 1 / 4)
    cycles = (2 * table.macs / 8 + moved) * usual[table.family] * table.count
    parts = np.append(np.bincount(table.family, cycles, minlength=len(FAMILIES)), _NODE * table.count.sum())
    return np.append(np.sqrt(parts / parts.sum()), np.log(parts.sum()))


def likeness(cases: Sequence[Likeness], rows: Sequence[Likeness]) -> Floats:
    """Covariance of what cases and rows are off by, ``(cases, rows)``."""
    ours, theirs = (np.stack([each.look for each in group]) for group in (cases, rows))
    size = (ours[:, None, -1] - theirs[None, :, -1]) ** 2 / _REACH_SIZE
    shares = np.maximum(0.0, 2.0 - 2.0 * ours[:, :-1] @ theirs[:, :-1].T)
    far = _EVERYWHERE * np.exp(-shares / _REACH_EVERYWHERE - size)
    near = _SAME_BOARD * np.exp(-shares / _REACH_SAME_BOARD - size)
    place, precision, runtime = (_same(cases, rows, name) for name in ("place", "precision", "runtime"))
    return np.asarray(runtime * np.where(precision, 1.0, _OTHER_PRECISION) * (far + place * near))


def _same(cases: Sequence[Likeness], rows: Sequence[Likeness], name: str) -> NDArray[np.bool_]:
    ours, theirs = (np.asarray([getattr(each, name) for each in group]) for group in (cases, rows))
    return np.asarray(ours[:, None] == theirs[None, :])


def to_json(alike: Alike) -> Mapping[str, object]:
    """Networks once each; rows as ``[network, place, precision, weight]``."""
    looks = {tuple(np.round(row.look, 3).tolist()): None for row in alike.rows}
    networks = {look: position for position, look in enumerate(looks)}
    places = sorted({f"{row.runtime}|{row.place}" for row in alike.rows})
    return {
        "networks": [list(look) for look in networks],
        "places": places,
        "rows": [
            [
                networks[tuple(np.round(row.look, 3).tolist())],
                places.index(f"{row.runtime}|{row.place}"),
                row.precision,
                round(float(weight), 3),
            ]
            for row, weight in zip(alike.rows, alike.weights, strict=True)
        ],
    }


@cache
def fitted_alike() -> Alike:
    """Of processors' rows."""
    folder = resources.files("edgekd.profiles.estimation.parameters")
    document = json.loads(folder.joinpath("cpu_alike.json").read_text("utf-8"))
    looks = [np.asarray(look) for look in document["networks"]]
    rows = []
    for at, place, precision, _ in document["rows"]:
        runtime, _, board = document["places"][place].partition("|")
        rows.append(Likeness(runtime, board, precision, looks[at]))
    return Alike(rows, np.asarray([row[-1] for row in document["rows"]]))
