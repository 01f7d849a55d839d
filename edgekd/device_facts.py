"""The keys under which a board's figures stand, the unit each is read in, and the ways to read them.

``DeviceSpec.facts`` is open: any key with value, unit and source is kept and shown. The keys below are the
ones that edgekd computes with. A file may write them in any unit of the same kind (``1479 MHz`` for a clock
that is read in GHz); :func:`fact_number` converts. Every key may be missing.

A processor with several kinds of cores has one set of the per-cluster keys for each kind, fastest first: the
first without suffix, then ``_2``, then ``_3`` (RK3588: ``cpu_core`` Cortex-A76, ``cpu_core_2`` Cortex-A55).
A figure for one power mode stands under ``mode_NAME_KEY`` (``mode_15W_gpu_bw_measured``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol


class AnyFact(Protocol):
    """What :class:`edgekd.device.Fact` has."""

    @property
    def key(self) -> str: ...
    @property
    def value(self) -> bool | int | float | str: ...
    @property
    def unit(self) -> str: ...


class HasFacts(Protocol):
    """What :class:`edgekd.device.DeviceSpec` has."""

    @property
    def facts(self) -> Iterable[AnyFact]: ...


@dataclass(frozen=True)
class FactKey:
    """``unit`` is what :func:`fact_number` returns; None marks a text."""

    unit: str | None
    meaning: str


# fmt: off
PER_CLUSTER: Mapping[str, FactKey] = {
    "cpu_core": FactKey(None, "micro-architecture, such as Cortex-A72, Carmel, Zen 4"),
    "cpu_cores": FactKey("cores", "cores of this kind"),
    "cpu_clock_max": FactKey("GHz", "highest clock with all of them busy"),
    "l1d": FactKey("KiB", "level-1 data cache of one core"),
    "l2": FactKey("KiB", "one level-2 cache"),
    "l2_shared_by": FactKey("cores", "cores that share one level-2 cache; 1 = private"),
    "cpu_flop_per_cycle_fp32": FactKey("flop/cycle/core", "a multiply-add counts as two"),
    "cpu_op_per_cycle_int8": FactKey("op/cycle/core", "by dot product where the core has one"),
    "cpu_fp32_measured_1core": FactKey("GFLOP/s", "what one of them reached"),
    "cpu_fp32_measured": FactKey("GFLOP/s", "what all of them reached together"),
    "cpu_fp16_measured_1core": FactKey("GFLOP/s", "what one of them reached"),
    "cpu_fp16_measured": FactKey("GFLOP/s", "what all of them reached together"),
    "cpu_int8_measured_1core": FactKey("GOP/s", "what one of them reached"),
    "cpu_int8_measured": FactKey("GOP/s", "what all of them reached together"),
}
WHOLE_BOARD: Mapping[str, FactKey] = {
    "soc": FactKey(None, "the chip, such as BCM2711"),
    "cpu_flags": FactKey(None, "as /proc/cpuinfo spells them"),
    "cpu_isa": FactKey(None, "the instruction set in words"),
    "l3": FactKey("KiB", "last cache that all cores share (also a system-level cache)"),
    "cpu_peak_fp32": FactKey("GFLOP/s", "all cores at the highest clock, by formula"),
    "cpu_peak_fp16": FactKey("GFLOP/s", "equal to fp32 where fp16 is storage only"),
    "cpu_peak_int8": FactKey("GOP/s", "all cores, by formula"),
    "ram": FactKey("GiB", "of the smallest variant sold"),
    "mem_type": FactKey(None, "such as LPDDR4-3200: kind and million transfers a second"),
    "mem_bus": FactKey("bit", "width of the memory bus"),
    "mem_bw_theoretical": FactKey("GB/s", "transfers a second x width"),
    "memcpy_1t": FactKey("GB/s", "bytes copied a second by one core (each is read and written)"),
    "memset_1t": FactKey("GB/s", "bytes written a second by one core"),
    "stream_copy": FactKey("GB/s", "STREAM: bytes read and written a second, all cores"),
    "stream_scale": FactKey("GB/s", "STREAM"),
    "stream_add": FactKey("GB/s", "STREAM"),
    "stream_triad": FactKey("GB/s", "STREAM"),
    "gpu_arch": FactKey(None, "generation and compute capability, such as Ampere (CC 8.7)"),
    "gpu_sm": FactKey("SM", "streaming multiprocessors"),
    "cuda_cores": FactKey("cores", ""),
    "tensor_cores": FactKey("cores", "0 where there are none"),
    "gpu_clock_max": FactKey("MHz", "highest in the mode without limits"),
    "gpu_l2": FactKey("KiB", "the GPU's level-2 cache"),
    "gpu_peak_fp32": FactKey("GFLOP/s", "CUDA cores"),
    "gpu_peak_fp16": FactKey("GFLOP/s", "CUDA cores"),
    "gpu_peak_fp16_tensor_dense": FactKey("GFLOP/s", "tensor cores, dense"),
    "gpu_peak_int8_dense": FactKey("GOP/s", "tensor cores, dense"),
    "gpu_peak_int8_sparse_2_4": FactKey("GOP/s", "tensor cores, 2:4 weights"),
    "gpu_bw_measured": FactKey("GB/s", "what GPU kernels reached"),
    "dla_cores": FactKey("cores", "deep-learning accelerators"),
    "dla_clock_max": FactKey("MHz", ""),
    "dla_peak_int8_dense": FactKey("GOP/s", "all of them"),
    "dla_peak_int8_sparse_2_4": FactKey("GOP/s", "all of them, 2:4 weights"),
}
# Unit to (kind, factor). Units of one kind convert into each other.
_UNITS: Mapping[str, tuple[str, float]] = {
    "GHz": ("clock", 1e9), "MHz": ("clock", 1e6), "kHz": ("clock", 1e3), "Hz": ("clock", 1.0),
    "bytes": ("size", 1.0), "KiB": ("size", 1024.0), "MiB": ("size", 1024.0**2), "GiB": ("size", 1024.0**3),
    "MB": ("size", 1e6), "GB": ("size", 1e9),
    "MB/s": ("bandwidth", 1e6), "GB/s": ("bandwidth", 1e9),
    "GFLOP/s": ("flops", 1e9), "TFLOP/s": ("flops", 1e12), "GOP/s": ("ops", 1e9), "TOP/s": ("ops", 1e12),
    "cores": ("cores", 1.0), "SM": ("SM", 1.0), "bit": ("bit", 1.0),
    "flop/cycle/core": ("flop a cycle", 1.0), "op/cycle/core": ("op a cycle", 1.0),
}
# fmt: on
_SUFFIX = re.compile(r"_([23])$")


@dataclass(frozen=True)
class Cluster:
    """Cores of one kind. What no fact tells is None."""

    core: str | None
    cores: int | None
    clock_ghz: float | None
    l1d_kib: float | None
    l2_kib: float | None
    l2_shared_by: int | None
    flop_per_cycle: float | None
    op_per_cycle_int8: float | None


def known_key(key: str) -> FactKey | None:
    """What a key means, if edgekd computes with it; suffixes of clusters and ``mode_NAME_`` are understood."""
    if key.startswith("mode_"):
        known = [name for name in (*WHOLE_BOARD, *PER_CLUSTER) if key.endswith(f"_{name}")]
        return known_key(max(known, key=len)) if known else None
    return WHOLE_BOARD.get(key) or PER_CLUSTER.get(_SUFFIX.sub("", key))


def unit_problem(key: str, value: object, unit: str) -> str | None:
    """What is wrong with a fact's value or unit, as ``got ...; allowed: ...``; None if nothing."""
    known = known_key(key)
    if known is None or known.unit is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"the value of {key} is not a number; got {value!r}; allowed: a number in {known.unit}"
    if not 0 <= value < float("inf"):
        return f"the value of {key} is out of range; got {value!r}; allowed: 0 and above"
    allowed = [name for name, (kind, _) in _UNITS.items() if kind == _UNITS[known.unit][0]]
    if unit not in allowed:
        return f"not a unit of {key}; got {unit!r}; allowed: {', '.join(allowed)}"
    return None


def fact_number(spec: HasFacts, key: str) -> float | None:
    """A fact in the unit of the table above; None where the board has no such fact.

    >>> from edgekd.device import load_device
    >>> fact_number(load_device("raspberry-pi-4b"), "cpu_clock_max")
    1.8
    """
    known = known_key(key)
    if known is None or known.unit is None:
        raise KeyError(key)
    fact = next((fact for fact in spec.facts if fact.key == key), None)
    if fact is None or isinstance(fact.value, str):
        return None
    return float(fact.value) * (_UNITS[fact.unit][1] / _UNITS[known.unit][1])


def fact_text(spec: HasFacts, key: str) -> str | None:
    """A fact as text; None where the board has no such fact."""
    return next((str(fact.value) for fact in spec.facts if fact.key == key), None)


def clusters(spec: HasFacts) -> tuple[Cluster, ...]:
    """The kinds of cores, fastest first; a board whose facts name none has one cluster of unknowns."""
    keys = {fact.key for fact in spec.facts}
    suffixes = ["", *(s for s in ("_2", "_3") if {f"cpu_core{s}", f"cpu_cores{s}"} & keys)]
    return tuple(_cluster(spec, suffix) for suffix in suffixes)


def memory_bandwidth(spec: HasFacts) -> float | None:
    """GB/s by the data sheet: as stated, or from a type such as LPDDR4-3200 and the width of the bus."""
    stated = fact_number(spec, "mem_bw_theoretical")
    bus, rate = fact_number(spec, "mem_bus"), re.search(r"-(\d{3,5})$", fact_text(spec, "mem_type") or "")
    return stated if stated is not None or bus is None or rate is None else int(rate[1]) * bus / 8 / 1000


def _cluster(spec: HasFacts, suffix: str) -> Cluster:
    def whole(key: str) -> int | None:
        number = fact_number(spec, key + suffix)
        return None if number is None else int(number)

    return Cluster(
        core=fact_text(spec, f"cpu_core{suffix}"),
        cores=whole("cpu_cores"),
        clock_ghz=fact_number(spec, f"cpu_clock_max{suffix}"),
        l1d_kib=fact_number(spec, f"l1d{suffix}"),
        l2_kib=fact_number(spec, f"l2{suffix}"),
        l2_shared_by=whole("l2_shared_by"),
        flop_per_cycle=fact_number(spec, f"cpu_flop_per_cycle_fp32{suffix}"),
        op_per_cycle_int8=fact_number(spec, f"cpu_op_per_cycle_int8{suffix}"),
    )
