"""What ``/proc`` and ``/sys`` say about a processor, read from recorded text. Nothing here opens a file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from edgekd.arm_cores import LITTLE, core_name

_CPU = "/sys/devices/system/cpu"
_UNITS = {"K": 1, "M": 1024}
# x86 by what its kernels are chosen by; the first whose flags are all there.
_X86 = (
    ("x86-64 AVX512-VNNI", {"avx512f", "avx512_vnni"}),
    ("x86-64 AVX512", {"avx512f"}),
    ("x86-64 AVX-VNNI", {"avx2", "avx_vnni"}),
    ("x86-64 AVX2", {"avx2"}),
    ("x86-64 AVX", {"avx"}),
)


@dataclass(frozen=True)
class CoreKind:
    """Cores of one kind. What nothing tells is None.

    Attributes:
        cores: those that are switched on.
        l2_shared_by: cores that share one level-2 cache.
    """

    core: str
    cores: int
    clock_ghz: float | None = None
    l1d_kib: int | None = None
    l2_kib: int | None = None
    l2_shared_by: int | None = None


def core_kinds(files: Mapping[str, str], arch: str) -> tuple[CoreKind, ...]:
    """The kinds of cores, fastest first."""
    blocks = _processors(files.get("/proc/cpuinfo", ""))
    names = [_name(block, arch) for block in blocks]
    indices: dict[str, list[int]] = {}
    for number, (name, block) in enumerate(zip(names, blocks, strict=True)):
        # Old kernels number no cores that are switched off; the position is the number then too.
        written = block.get("processor", "")
        indices.setdefault(name, []).append(int(written) if written.isdigit() else number)
    kinds = [_kind(name, cpus, files, blocks[names.index(name)]) for name, cpus in indices.items()]
    return tuple(sorted(kinds, key=lambda k: (k.core in LITTLE, -(k.clock_ghz or 0.0), -k.cores)))


def common_flags(cpuinfo: str) -> frozenset[str]:
    """Instruction-set flags that every core has."""
    found = [_flags(block) for block in _processors(cpuinfo)] or [_flags(_fields(cpuinfo))]
    return frozenset.intersection(*[flags for flags in found if flags] or [frozenset()])


def cache_sizes(files: Mapping[str, str], cpu: int = 0) -> dict[str, int]:
    """Name such as ``L2`` or ``L1-data`` to KiB, of one core."""
    sizes = {}
    for path in sorted(files):
        if match := re.fullmatch(rf"{_CPU}/cpu{cpu}/cache/(index\d+)/level", path):
            here = f"{_CPU}/cpu{cpu}/cache/{match[1]}"
            level, kind = files[path].strip(), files.get(f"{here}/type", "").strip()
            size = files.get(f"{here}/size", "").strip()
            if level and size[:-1].isdigit() and size[-1] in _UNITS:
                name = f"L{level}" if kind == "Unified" else f"L{level}-{kind.lower()}"
                sizes[name] = int(size[:-1]) * _UNITS[size[-1]]
    return sizes


def memory_bytes(meminfo: str) -> int:
    """MemTotal; 0 where it is not told."""
    match = re.search(r"^MemTotal:\s*(\d+) kB", meminfo, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def model_name(files: Mapping[str, str]) -> str:
    """What the board or the processor calls itself; empty where it does not."""
    board = files.get("/proc/device-tree/model", "").strip("\0\n ")
    named = [block.get("model name", "") for block in _processors(files.get("/proc/cpuinfo", ""))]
    return board or next((name for name in named if name), "")


def _kind(name: str, cpus: list[int], files: Mapping[str, str], block: Mapping[str, str]) -> CoreKind:
    caches = cache_sizes(files, cpus[0])
    return CoreKind(
        core=name,
        cores=len(cpus),
        clock_ghz=_clock_ghz(cpus, files, block),
        l1d_kib=caches.get("L1-data"),
        l2_kib=caches.get("L2"),
        l2_shared_by=_sharing(files, cpus[0]),
    )


def _clock_ghz(cpus: list[int], files: Mapping[str, str], block: Mapping[str, str]) -> float | None:
    limits = [files.get(f"{_CPU}/cpu{cpu}/cpufreq/cpuinfo_max_freq", "").strip() for cpu in cpus]
    kilohertz = [int(limit) for limit in limits if limit.isdigit()]
    if kilohertz:
        return max(kilohertz) / 1e6
    # A virtual machine shows no limits: the clock in the processor's name, else the one it runs at now.
    named = re.search(r"@ ([\d.]+)GHz", block.get("model name", ""))
    now = block.get("cpu MHz", "")
    if named:
        return float(named[1])
    return round(float(now) / 1000, 3) if re.fullmatch(r"\d+(\.\d+)?", now) and float(now) else None


def _sharing(files: Mapping[str, str], cpu: int) -> int | None:
    for path, level in files.items():
        if level.strip() == "2" and (match := re.fullmatch(rf"({_CPU}/cpu{cpu}/cache/index\d+)/level", path)):
            return _count(files.get(f"{match[1]}/shared_cpu_list", "")) or None
    return None


def _count(cpu_list: str) -> int:
    """Length of a kernel list of processors such as ``0-3,6``."""
    total = 0
    for part in filter(None, cpu_list.strip().split(",")):
        first, _, last = part.partition("-")
        if first.isdigit() and (last.isdigit() or not last):
            total += int(last or first) - int(first) + 1
    return total


def _name(block: Mapping[str, str], arch: str) -> str:
    if arch == "aarch64":
        return core_name(block.get("CPU implementer", "?"), block.get("CPU part", "?"))
    flags = _flags(block)
    return next((name for name, needs in _X86 if needs <= flags), "x86-64")


def _flags(block: Mapping[str, str]) -> frozenset[str]:
    return frozenset((block.get("flags") or block.get("Features") or "").split())


def _processors(cpuinfo: str) -> list[dict[str, str]]:
    """One mapping for each block that begins with ``processor : N``."""
    starts = [match.start() for match in re.finditer(r"^processor\s*:", cpuinfo, re.MULTILINE)]
    ends = [*starts[1:], len(cpuinfo)]
    blocks = [_fields(cpuinfo[start:end]) for start, end in zip(starts, ends, strict=True)]
    # A kernel for 32-bit programs prints the features once, after all processors.
    last = Counter(key for block in blocks for key in block)
    if blocks and last["CPU part"] == 1 < len(blocks):
        shared = {k: v for k, v in blocks[-1].items() if k != "processor"}
        blocks = [{**shared, **block} for block in blocks]
    return blocks


def _fields(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    found: dict[str, str] = {}
    for key, _, value in pairs:
        found.setdefault(key.strip(), value.strip())
    return found
