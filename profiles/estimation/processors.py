"""What a processor takes for an inference, before fitted parameters: products, moved elements, memory, dispatch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgekd.profiles.estimation.core_kinds import CoreKind
from edgekd.profiles.estimation.hardware import CpuCluster, Hardware
from edgekd.profiles.estimation.memory import add_memory
from edgekd.profiles.estimation.op_table import FREE, PRODUCTS, Floats, Ints, OpTable
from edgekd.profiles.estimation.operators import FAMILIES
from edgekd.profiles.estimation.runtimes import RuntimeKind, precisions
from edgekd.profiles.estimation.sharing import DISPATCH, add_overheads, threads_of
from edgekd.profiles.estimation.terms import COMPUTE, OVERHEAD, Feature, Terms, spread

# A vector unit loads about 16 bytes a cycle.
_VECTOR_BYTES = 16.0
_BYTES = {"fp32": 4.0, "fp16": 2.0, "int8": 1.0}
_LIGHT = ("conv-depthwise",)
_GROUPED = FAMILIES.index("conv-grouped")


@dataclass(frozen=True)
class Crew:
    """The cores that run an inference, as one core's speed and how many of it.

    Attributes:
        share: how many cores of this kind the crew is worth when every core takes what it can.
        even: the same when all cores take equal parts, so that the slowest decides.
        uneven: how much more the cores could do than all at the pace of the slowest, where that decides.
        bandwidth: GB/s that the crew moves.
    """

    kind: CoreKind
    ghz: float
    threads: int
    share: float
    even: float
    bandwidth: float
    cache_kib: float
    uneven: float = 1.0


def occupied(hardware: Hardware, threads: int, clusters: slice = slice(None)) -> tuple[int, ...]:
    """How many cores of each cluster ``threads`` threads occupy, the fastest of the allowed ones first."""
    allowed = range(len(hardware.clusters))[clusters]
    found = [0] * len(hardware.clusters)
    for position in allowed:
        found[position] = min(threads - sum(found), hardware.clusters[position].cores)
    return tuple(found)


def crew_of(hardware: Hardware, threads: int, *, static: bool, clusters: slice = slice(None)) -> Crew:
    """Which cores ``threads`` threads occupy, the fastest first.

    Args:
        static: work is dealt out in equal parts, so that the slowest core decides.
        clusters: of the hardware that may be used.
    """
    counts = occupied(hardware, threads, clusters)
    used = [pair for pair in zip(hardware.clusters, counts, strict=True) if pair[1]]
    threads = sum(counts)
    lead = used[-1][0] if static else used[0][0]
    share = even = float(threads)
    uneven = 1.0
    if static:
        uneven = sum(count * _speed(cluster) / _speed(lead) for cluster, count in used) / threads
    else:
        share = sum(count * _speed(cluster) / _speed(lead) for cluster, count in used)
        even = threads * min(_speed(cluster) for cluster, _ in used) / _speed(lead)
    alone = hardware.core_bandwidth
    if lead is not hardware.clusters[0]:
        alone = min(alone, lead.kind.bandwidth)
    bandwidth = (hardware.bandwidth**-2 + (alone * threads) ** -2) ** -0.5
    bandwidth = min(bandwidth, alone * threads)
    return Crew(lead.kind, lead.ghz, threads, share, even, bandwidth, hardware.cache_kib, uneven)


def cpu_terms(
    table: OpTable, crews: Callable[[int], Crew], threads: int, runtime: RuntimeKind, precision: str
) -> Terms:
    """The terms of one inference on a processor.

    Args:
        crews: the cores that so many threads occupy.
    """
    terms = Terms(table.count)
    crew = crews(threads)
    used = threads_of(table, crew.threads, runtime)
    kinds = precisions(table, crew.kind, runtime, precision)
    for family in FAMILIES:
        for kind in ("fp32", "fp16", "int8"):
            ops = np.flatnonzero(table.single == FAMILIES.index(family))
            ops = ops[kinds[ops] == kind]
            if len(ops) and family not in FREE:
                for count, grouped in sorted(set(zip(used[ops], table.family[ops] == _GROUPED, strict=True))):
                    some = ops[(used[ops] == count) & ((table.family[ops] == _GROUPED) == grouped)]
                    _family_terms(terms, table, some, family, kind, crews(int(count)), runtime)
    storage = np.asarray([_BYTES[str(kind)] for kind in kinds])
    add_memory(terms, table, storage, crew, runtime)
    peaks = np.asarray([peak_per_cycle(crew.kind, str(kind)) for kind in kinds])
    cycles = 2 * table.macs / peaks + (table.inputs + table.outputs) * storage / _VECTOR_BYTES
    add_overheads(
        terms, table, cycles, ghz=crew.ghz, threads=crew.threads, runtime=runtime, style=crew.kind.style
    )
    return terms


def _family_terms(
    terms: Terms, table: OpTable, ops: Ints, family: str, kind: str, crew: Crew, runtime: RuntimeKind
) -> None:
    style, size = crew.kind.style, _BYTES[kind]
    light = family in _LIGHT or family not in PRODUCTS
    scaling = spread("threads/light" if light else "threads/heavy", runtime.chain, style)
    # Each doubling of the crew gains a little less than the one before.
    share: list[Feature] = [(name, -np.log(crew.share)) for name, _ in scaling]
    share.append(("threads/curve", np.log(crew.share) ** 2))
    # Between equal parts and each what it can: how much a slow cluster holds a fast one up.
    share += [
        (name, np.log(crew.share / crew.even))
        for name in ("threads/even", f"threads/even|{runtime.chain[0]}")
    ]
    if crew.uneven > 1:
        # Equal parts, and yet a fast core that is done early takes a little from a slow one.
        share.append(("threads/uneven", -np.log(crew.uneven)))
    core: list[Feature] = [
        (f"core/{kind}|{crew.kind.name}", 1.0),
        (f"runtime/{kind}|{runtime.chain[-1]}|{style}", 1.0),
    ]
    grouped = bool((table.family[ops] == _GROUPED).all())
    if grouped:
        core += spread("grouped", runtime.chain, "")
    per_second = crew.ghz * 1e9
    vector = _VECTOR_BYTES * per_second

    def add(name: str, seconds: Floats) -> None:
        formats = spread(f"{name}/{kind}", runtime.chain, "")
        plain = spread(name, runtime.chain, style if family in PRODUCTS else "")
        terms.add(ops, COMPUTE, seconds, [*plain, *formats, *share, *core])

    if family not in PRODUCTS:
        add(f"move/{family}", (table.inputs[ops] + table.outputs[ops]) * size / vector)
        return
    peak = peak_per_cycle(crew.kind, kind) * per_second
    padded = table.columns[ops]
    if family != "conv-depthwise":
        padded = np.ceil(padded / 8) * 8
    add(f"mac/{family}", 2 * table.macs[ops] * padded / table.columns[ops] / peak)
    group = "light" if light else "heavy"
    add(f"out/{group}", table.outputs[ops] * size / vector)
    if family in ("conv-dense-other", "conv-first", "deconv"):
        add("pack/windows", table.rows[ops] * table.depth[ops] * table.groups[ops] * size / vector)
    elif family != "conv-depthwise":
        add("pack/rows", table.inputs[ops] * size / vector)
        add("weights", table.weights[ops] * size / vector)
    if grouped:
        features = spread("groups", runtime.chain, style)
        terms.add(ops, OVERHEAD, table.groups[ops] * DISPATCH / crew.ghz / 10, features)


def peak_per_cycle(kind: CoreKind, precision: str) -> float:
    """Operations a cycle of one core in a precision of arithmetic."""
    return {"fp32": kind.flop32, "fp16": kind.flop16 or kind.flop32, "int8": kind.op8}[precision]


def _speed(cluster: CpuCluster) -> float:
    return cluster.ghz * cluster.kind.flop32 * (0.6 if cluster.kind.style == "in-order" else 1.0)
