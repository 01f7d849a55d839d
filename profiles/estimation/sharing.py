"""What it costs to run an operator at all: its dispatch, and the wait until the threads that share it are done.

Published rows on one thread and on several tell the two apart: fitted for themselves, those on several threads ask for
three times as much a node. One cost for both, as it was before, made nets of ten nodes six times too slow on one.
"""

from __future__ import annotations

import math

import numpy as np

from edgekd.profiles.estimation.op_table import FREE, Floats, Ints, OpTable
from edgekd.profiles.estimation.operators import FAMILIES
from edgekd.profiles.estimation.runtimes import RuntimeKind
from edgekd.profiles.estimation.terms import OVERHEAD, Terms, spread

# A dispatch is counted in units of ten microseconds at 1 GHz.
DISPATCH = 10e-6
# Core cycles of work below which an operator is over before anybody waits: a few rows of a small product.
_BRIEF = 2e3
_DEALT = ("conv-depthwise", "conv-grouped")


def threads_of(table: OpTable, threads: int, runtime: RuntimeKind) -> Ints:
    """How many threads each operator is given. Groups are dealt out to all of them, whatever they hold."""
    everyone = np.full(table.size, threads)
    if not runtime.grain:
        return everyone
    work = np.where(table.macs > 0, table.macs, np.maximum(table.inputs, table.outputs))
    wanted = 1 + (work // runtime.grain).astype(np.int64)
    dealt = np.isin(table.family, [FAMILIES.index(name) for name in _DEALT])
    return np.asarray(np.where(dealt, everyone, np.minimum(wanted, threads)))


def add_overheads(
    terms: Terms,
    table: OpTable,
    cycles: Floats,
    *,
    ghz: float,
    threads: int,
    runtime: RuntimeKind,
    style: str,
) -> None:
    """Dispatch and waits of every operator, and what is paid once an inference.

    Args:
        cycles: of one core, that each operator would take at its peak.
        threads: of the runtime. An operator that one of them runs alone waits too: the others spin meanwhile.
    """
    unit = DISPATCH / ghz
    busy = np.flatnonzero(~np.isin(table.family, [FAMILIES.index(name) for name in FREE]))
    terms.add(busy, OVERHEAD, np.full(len(busy), unit), spread("dispatch", runtime.chain, style))
    brief = cycles / (cycles + _BRIEF)
    waits = unit * math.log2(threads) * brief[busy]
    terms.add(busy, OVERHEAD, waits, spread("wait", runtime.chain, style))
    terms.once(unit * 10, spread("run", runtime.chain, style))
