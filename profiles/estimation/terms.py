"""Time as a sum of terms, each a count over a speed times the exponential of what was fitted.

``seconds = count / speed * exp(sum of coefficient * parameter)``. So every parameter is a logarithm, zero where
nothing is known, and the derivative by each is the term itself times its coefficient: the fit needs no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgekd.profiles.estimation.op_table import Floats, Ints

COMPUTE, MEMORY, OVERHEAD = 0, 1, 2
# How sharply the larger of compute and memory wins: (c^q + m^q)^(1/q).
SHARPNESS = 3.0

Feature = tuple[str, float]


@dataclass(frozen=True)
class Group:
    """Terms that share their parameters: one for each operator in ``ops``.

    Attributes:
        slot: ``COMPUTE`` and ``MEMORY`` overlap, ``OVERHEAD`` comes on top.
        seconds: before the parameters.
    """

    ops: Ints
    slot: int
    seconds: Floats
    features: tuple[Feature, ...]


@dataclass
class Terms:
    """All terms of one inference.

    Attributes:
        count: how many of each operator there are; one operator more stands for what is paid once.
    """

    count: Floats
    groups: list[Group] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.count)

    def add(self, ops: Ints, slot: int, seconds: Floats, features: Sequence[Feature]) -> None:
        """Terms of nothing are left out. ``seconds``: of one such operator."""
        kept = seconds > 0
        if kept.any():
            seconds = seconds[kept] * np.append(self.count, 1.0)[ops[kept]]
            self.groups.append(Group(ops[kept], slot, seconds, tuple(features)))

    def once(self, seconds: float, features: Sequence[Feature]) -> None:
        """Paid once an inference."""
        self.add(np.asarray([self.size]), OVERHEAD, np.asarray([seconds]), features)


def spread(name: str, runtimes: Sequence[str], style: str) -> list[Feature]:
    """A parameter of all runtimes, with what these and cores of this style (if it is given) add to it."""
    return [(each, 1.0) for each in (name, *(f"{name}|{label}" for label in (style, *runtimes) if label))]


@dataclass(frozen=True)
class OpSeconds:
    """Of each operator; the last entry is what is paid once."""

    compute: Floats
    memory: Floats
    overhead: Floats

    @property
    def total(self) -> Floats:
        return roof(self.compute, self.memory) + self.overhead


def roof(compute: Floats, memory: Floats) -> Floats:
    """The larger of two, rounded where they are close."""
    top = np.maximum(np.maximum(compute, memory), 1e-30)
    ratio = np.minimum(compute, memory) / top
    return np.asarray(top * (1 + ratio**SHARPNESS) ** (1 / SHARPNESS))


def price(terms: Terms, parameters: Mapping[str, float]) -> OpSeconds:
    """Seconds of each operator. A parameter that is not there is zero: nothing known."""
    slots = np.zeros((3, terms.size + 1))
    for group in terms.groups:
        log = sum(coefficient * parameters.get(name, 0.0) for name, coefficient in group.features)
        np.add.at(slots[group.slot], group.ops, group.seconds * np.exp(log))
    return OpSeconds(*slots)
