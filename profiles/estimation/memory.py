"""What a processor moves from memory: what does not stay in the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgekd.profiles.estimation.op_table import FREE, Bools, Floats, OpTable
from edgekd.profiles.estimation.operators import FAMILIES
from edgekd.profiles.estimation.runtimes import RuntimeKind
from edgekd.profiles.estimation.terms import MEMORY, Terms, spread

if TYPE_CHECKING:
    from edgekd.profiles.estimation.processors import Crew

_HALF = 2.0
# No F16C: such a core cannot load fp16 as fp32.
_CONVERTS_NOT = ("x86-sse",)


def add_memory(terms: Terms, table: OpTable, storage: Floats, crew: Crew, runtime: RuntimeKind) -> None:
    """Weights of a whole network, activations of one operator.

    Args:
        storage: bytes of an element of each operator.
    """
    ops = np.arange(table.size)
    cache = crew.cache_kib * 1024
    weights = table.weights * _stored(table, storage, crew, runtime)
    moved = (table.inputs + table.outputs) * storage
    moved[_of(table, FREE)] = 0
    stays = _stays(np.asarray((weights * table.count).sum()), cache)
    rate = crew.bandwidth * 1e9
    style = crew.kind.style
    terms.add(ops, MEMORY, weights * (1 - stays) / rate, spread("memory/weights", runtime.chain, style))
    terms.add(
        ops,
        MEMORY,
        moved * (1 - _stays(moved, cache)) / rate,
        spread("memory/activations", runtime.chain, style),
    )


def _stored(table: OpTable, storage: Floats, crew: Crew, runtime: RuntimeKind) -> Floats:
    """Bytes of a weight of each operator."""
    if crew.kind.style in _CONVERTS_NOT:
        return storage
    return np.where(_of(table, tuple(runtime.half_weights)), np.minimum(storage, _HALF), storage)


def _of(table: OpTable, families: tuple[str, ...]) -> Bools:
    return np.isin(table.family, [FAMILIES.index(name) for name in families])


def _stays(size: Floats, cache: float) -> Floats:
    """Of data that is used again after ``size`` bytes of other data, the share that a cache still has."""
    return np.asarray(1 / (1 + (size / cache) ** 2))
