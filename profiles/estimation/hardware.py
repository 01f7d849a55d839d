"""A board as the latency model sees it: clusters of cores, caches, memory, GPU; from the facts it has.

Every fact may be missing. A core's kind gives what its cycles do, a kind of memory what it usually moves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgekd.device_facts import clusters, fact_number, fact_text, memory_bandwidth
from edgekd.profiles.estimation.core_kinds import CoreKind, core_kind, table
from edgekd.profiles.estimation.graphics import Gpu, read_gpu

if TYPE_CHECKING:
    from edgekd.device_parts import PowerMode
    from edgekd.device_spec import DeviceSpec

# GB/s by the data sheet that boards with such cores usually have.
_USUAL_MEMORY = {"in-order": 6.4, "narrow": 12.8, "wide": 25.6, "carmel": 60.0, "x86": 38.4}
_MANY = re.compile(r"(\d+)\s*x\s*([^+,/]+)")
_GHZ = re.compile(r"(\d+(?:\.\d+)?)\s*GHz", re.IGNORECASE)


@dataclass(frozen=True)
class CpuCluster:
    """``l2_kib``: of all these cores together."""

    kind: CoreKind
    cores: int
    ghz: float
    l2_kib: float


@dataclass(frozen=True)
class Hardware:
    """Attributes:
    clusters: fastest first.
    cache_kib: last-level cache of the processor.
    bandwidth: GB/s that all cores together move, as programs reach it.
    core_bandwidth: GB/s that one core of the first cluster moves.
    assumed: what was not in the facts, in words.
    """

    name: str
    clusters: tuple[CpuCluster, ...]
    cache_kib: float
    bandwidth: float
    core_bandwidth: float
    gpu: Gpu | None = None
    assumed: tuple[str, ...] = ()

    @property
    def cores(self) -> int:
        return sum(cluster.cores for cluster in self.clusters)

    @property
    def style(self) -> str:
        return self.clusters[0].kind.style


def read_hardware(spec: DeviceSpec, mode: PowerMode | None = None) -> Hardware:
    """The hardware behind a device's description, in a power mode (None: the highest clocks)."""
    assumed: list[str] = []
    found = _clusters(spec, assumed)
    if mode is not None:
        found = _in_mode(found, mode)
    first = found[0].kind
    style = "x86" if first.x86 else first.style
    every, one = _bandwidth(spec, found, style, assumed)
    cache = max(fact_number(spec, "l3") or 0.0, max(cluster.l2_kib for cluster in found))
    return Hardware(spec.name, found, cache, every, one, read_gpu(spec, mode), tuple(assumed))


def _clusters(spec: DeviceSpec, assumed: list[str]) -> tuple[CpuCluster, ...]:
    named = clusters(spec)
    text = named[0].core or fact_text(spec, "cpu") or ""
    many = _MANY.findall(text) if len(named) == 1 else []
    found = []
    if len(many) > 1:
        for count, name in many:
            kind, clock = core_kind(name, spec.arch), _GHZ.search(name)
            ghz = float(clock[1]) if clock else kind.ghz
            found.append(CpuCluster(kind, int(count), ghz, _l2(kind, int(count), None, None)))
    else:
        for position, cluster in enumerate(named):
            name = cluster.core or (text if position == 0 else None) or spec.title
            kind, clock = core_kind(name, spec.arch), _GHZ.search(name)
            cores = cluster.cores or (int(many[0][0]) if many else spec.cores if len(named) == 1 else 1)
            ghz = cluster.clock_ghz or (float(clock[1]) if clock else 0.0)
            if not ghz:
                ghz = kind.ghz
                assumed.append(f"cpu_clock_max of {kind.name} ({ghz:g} GHz)")
            if cluster.flop_per_cycle:
                kind = replace(kind, flop32=cluster.flop_per_cycle)
            shared = cluster.l2_shared_by
            found.append(CpuCluster(kind, cores, ghz, _l2(kind, cores, cluster.l2_kib, shared)))
    assumed += [f"core unknown: taken for {c.kind.name}" for c in found if not c.kind.known]
    return tuple(sorted(found, key=lambda c: -c.ghz * c.kind.flop32))


def _l2(kind: CoreKind, cores: int, kib: float | None, shared_by: int | None) -> float:
    """All level-2 caches of ``cores`` cores, in KiB."""
    return (kib or kind.l2_kib) * max(1.0, cores / (shared_by or kind.l2_shared_by))


def _in_mode(found: tuple[CpuCluster, ...], mode: PowerMode) -> tuple[CpuCluster, ...]:
    limits = [(mode.cpu_cores, mode.cpu_clock_ghz), (mode.cpu_cores_2, mode.cpu_clock_2_ghz)]
    kept = []
    for position, cluster in enumerate(found):
        cores, ghz = limits[position] if position < 2 else (None, None)
        cores = cluster.cores if cores is None else min(cores, cluster.cores)
        if cores:
            kept.append(replace(cluster, cores=cores, ghz=ghz or cluster.ghz))
    return tuple(kept)


def _bandwidth(
    spec: DeviceSpec, found: tuple[CpuCluster, ...], style: str, assumed: list[str]
) -> tuple[float, float]:
    kind = found[0].kind
    sheet = memory_bandwidth(spec) or _by_kind(fact_text(spec, "mem_type"))
    if sheet is None:
        sheet = _USUAL_MEMORY[style]
        assumed.append(f"mem_bw_theoretical ({sheet:g} GB/s)")
    every = sheet * float(table()["memory_efficiency"][style])
    streams = [fact_number(spec, f"stream_{name}") for name in ("copy", "triad")]
    if known := [stream for stream in streams if stream]:
        every = sum(known) / len(known)
    copied = fact_number(spec, "memcpy_1t")
    one = min(2 * copied if copied else kind.bandwidth, sheet)
    # Few programs draw more than four cores' worth.
    return max(min(every, 4 * one), one), one


def _by_kind(memory: str | None) -> float | None:
    """GB/s of the usual configuration of a kind of memory such as ``LPDDR4``."""
    name = re.match(r"(lp)?ddr\d(x)?", (memory or "").lower().replace(" ", ""))
    value = table()["memory_types"].get(name[0]) if name else None
    return float(value) if value else None
