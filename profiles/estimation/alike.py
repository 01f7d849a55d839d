"""What published networks alike were off by, after the fit: a correction that fades with the distance between networks.

A Gaussian process over the residuals of fitted rows (Rasmussen and Williams, "Gaussian Processes for Machine Learning",
2006, chapter 2). Rows of the same runtime count, those of the same board more, another precision half; all rows of
a board in the same precision a little, whatever the network, by the share of cores that both compute on. Where nothing
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

from edgekd.profiles.estimation.hardware import Hardware
from edgekd.profiles.estimation.op_table import FREE, PRODUCTS, Floats, OpTable
from edgekd.profiles.estimation.operators import FAMILIES
from edgekd.profiles.estimation.processors import occupied
from edgekd.profiles.estimation.runtimes import RuntimeKind, computed

# Chosen on the half of boards and families that was named for choosing (benchmarks/latency/choose.py).
_EVERYWHERE, _SAME_BOARD, _SAME_CORES = 0.01, 0.04, 0.01  # variances of log time
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
    """Where a row stands.

    Attributes:
        place: the board.
        precision: of the arithmetic.
        crew: how many cores of each kind compute, as ``2+4``; empty on a GPU.
        look: see :func:`look_of`.
    """

    runtime: str
    place: str
    precision: str
    crew: str
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


def case_of(
    table: OpTable,
    hardware: Hardware,
    runtime: RuntimeKind,
    precision: str,
    threads: int,
    clusters: slice = slice(None),
) -> Likeness:
    """A network on a board."""
    crew = ""
    if not runtime.gpu:
        precision = computed(precision, hardware.clusters[0].kind, runtime)
        crew = "+".join(str(count) for count in occupied(hardware, threads, clusters))
    return Likeness(runtime.chain[0], hardware.name, precision, crew, look_of(table))


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
    near_cores = place * precision * _cores_in_common(cases, rows)
    networks = np.where(precision, 1.0, _OTHER_PRECISION) * (far + place * near)
    return np.asarray(runtime * (networks + _SAME_CORES * near_cores))


def _same(cases: Sequence[Likeness], rows: Sequence[Likeness], name: str) -> NDArray[np.bool_]:
    ours, theirs = (np.asarray([getattr(each, name) for each in group]) for group in (cases, rows))
    return np.asarray(ours[:, None] == theirs[None, :])


def _cores_in_common(cases: Sequence[Likeness], rows: Sequence[Likeness]) -> Floats:
    """Of all cores that either of two computes on, the share that both do; of rows on one board."""
    names = sorted({each.crew for each in (*cases, *rows)})
    crews = [tuple(int(count) for count in name.split("+") if name) for name in names]
    shares = np.asarray([[_overlap(one, other) for other in crews] for one in crews])
    ours, theirs = ([names.index(each.crew) for each in group] for group in (cases, rows))
    return shares[np.ix_(ours, theirs)]


def _overlap(one: Sequence[int], other: Sequence[int]) -> float:
    pairs = list(zip(one, other, strict=False))
    whole = sum(max(pair) for pair in pairs)
    return sum(min(pair) for pair in pairs) / whole if whole else float(len(one) == len(other))


def to_json(alike: Alike) -> Mapping[str, object]:
    """Networks and places once each; rows as ``[network, place, weight]``."""
    looks = {tuple(np.round(row.look, 3).tolist()): None for row in alike.rows}
    networks = {look: position for position, look in enumerate(looks)}
    places = sorted({_place(row) for row in alike.rows})
    return {
        "networks": [list(look) for look in networks],
        "places": places,
        "rows": [
            [
                networks[tuple(np.round(row.look, 3).tolist())],
                places.index(_place(row)),
                round(float(weight), 3),
            ]
            for row, weight in zip(alike.rows, alike.weights, strict=True)
        ],
    }


def _place(row: Likeness) -> str:
    return f"{row.runtime}|{row.place}|{row.precision}|{row.crew}"


@cache
def fitted_alike(kind: str) -> Alike:
    """Of the rows of ``cpu`` or ``gpu``."""
    folder = resources.files("edgekd.profiles.estimation.parameters")
    document = json.loads(folder.joinpath(f"{kind}_alike.json").read_text("utf-8"))
    looks = [np.asarray(look) for look in document["networks"]]
    rows = []
    for at, place, _ in document["rows"]:
        runtime, board, precision, crew = document["places"][place].split("|")
        rows.append(Likeness(runtime, board, precision, crew, looks[at]))
    return Alike(rows, np.asarray([row[-1] for row in document["rows"]]))
