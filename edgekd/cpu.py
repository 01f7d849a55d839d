"""The machine at hand: cores, architecture, instruction flags, caches and memory. Standard library only."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from edgekd.errors import DeviceError, fault
from edgekd.machine_text import CoreKind, cache_sizes, common_flags, core_kinds, memory_bytes, model_name

ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
# Either flag gives ONNX Runtime an 8-bit dot product that accumulates in 32 bits and cannot saturate.
_VNNI_FLAGS = frozenset({"avx512_vnni", "avx_vnni"})
# Highest opset by installed ONNX Runtime. 1.20: onnxruntime.ai/docs/reference/compatibility.html.
# 1.31: measured, a graph stamped 26 loads in 1.31.1 and one stamped 27 is refused.
_RUNTIME_OPSETS = (((1, 31), 26), ((1, 20), 21))
_FILES = ("proc/cpuinfo", "proc/meminfo", "proc/device-tree/model")
_GLOBS = ("cpu[0-9]*/cpufreq/cpuinfo_max_freq", "cpu[0-9]*/cache/index[0-9]*/*")
_READ_HERE = "read from this machine: /proc, /sys"


@dataclass(frozen=True)
class CpuFacts:
    """What the operating system says about the processor.

    Attributes:
        cores: logical cores that this process may use.
        flags: instruction-set flags as Linux spells them; empty where the system does not tell.
        caches: name such as ``L2`` or ``L1-data`` to size in bytes, of core 0.
        kinds: kinds of cores, fastest first.
    """

    title: str
    arch: str
    cores: int
    flags: frozenset[str]
    caches: dict[str, int]
    memory_bytes: int
    kinds: tuple[CoreKind, ...] = ()

    @property
    def has_vnni(self) -> bool:
        return bool(self.flags & _VNNI_FLAGS)

    @property
    def scheme(self) -> str:
        """Activation scheme for ONNX Runtime here.

        x86 without VNNI adds pairs of uint8 x int8 products in 16 bits, which saturates: weights lose a bit
        there (``reduce_range``). Source: ONNX Runtime documentation, "Quantize ONNX models", section on
        reduce-range. Arm widens its products and needs no such care.
        """
        return "u8s8-reduce-range" if self.arch == "x86_64" and not self.has_vnni else "u8s8"

    @property
    def fingerprint(self) -> str:
        """The same for the same machine: what was measured on it holds as long as this does."""
        return f"{self.title}|{self.arch}|{self.cores}|{self.memory_bytes >> 28}"

    def device_fields(
        self, *, source: str = _READ_HERE, runtime_version: str | None = None
    ) -> dict[str, Any]:
        """The fields of a device description that the machine decides; what is unknown is empty or 0.

        Args:
            source: where it was read.
            runtime_version: of ONNX Runtime there; by default the one installed here.
        """
        version = installed_runtime() if runtime_version is None else runtime_version
        return {
            "title": self.title,
            "arch": self.arch,
            "cores": self.cores,
            "scheme": self.scheme,
            "kernel_rule": "x86" if self.arch == "x86_64" else "arm",
            "memory_bytes": self.memory_bytes,
            "runtime_version": version,
            "opset_max": runtime_opset(version),
            "facts": self.facts(source),
        }

    def facts(self, source: str) -> list[dict[str, Any]]:
        """Figures under the keys of :mod:`edgekd.device_facts`."""
        found: list[tuple[str, Any, str]] = []
        for kind, suffix in zip(self.kinds, ("", "_2", "_3"), strict=False):
            found += [
                (f"cpu_core{suffix}", kind.core, ""),
                (f"cpu_cores{suffix}", kind.cores, "cores"),
                (f"cpu_clock_max{suffix}", kind.clock_ghz, "GHz"),
                (f"l1d{suffix}", kind.l1d_kib, "KiB"),
                (f"l2{suffix}", kind.l2_kib, "KiB"),
                (f"l2_shared_by{suffix}", kind.l2_shared_by, "cores"),
            ]
        last = self.caches.get("L3")
        found += [("l3", last and last // 1024, "KiB"), ("cpu_flags", " ".join(sorted(self.flags)), "")]
        return [
            {"key": key, "value": value, "unit": unit, "source": source}
            for key, value, unit in found
            if value
        ]


def runtime_opset(version: str) -> int:
    """The highest opset that this ONNX Runtime is known to load; 0 for one older than the table."""
    release = tuple(int(part) for part in version.split(".")[:2] if part)
    return next((opset for least, opset in _RUNTIME_OPSETS if release >= least), 0)


def installed_runtime() -> str:
    """The installed ONNX Runtime's version, such as ``1.31.1``, or nothing; not imported."""
    for package in ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"):
        try:
            found = re.match(r"\d+(\.\d+)+", metadata.version(package))
        except metadata.PackageNotFoundError:
            continue
        if found:
            return found.group()
    return ""


def detect_cpu(root: Path = Path("/"), *, machine: str | None = None, cores: int | None = None) -> CpuFacts:
    """Read ``/proc`` and ``/sys`` below ``root``; what cannot be read stays empty or 0.

    Raises:
        DeviceError: an architecture for which edgekd knows no quantization rule.
    """
    cpus = root / "sys/devices/system/cpu"
    paths = [root / name for name in _FILES] + [path for pattern in _GLOBS for path in cpus.glob(pattern)]
    files = {f"/{path.relative_to(root)}": _read(path) for path in paths}
    return cpu_from_text(files, machine=machine or platform.machine(), cores=cores or usable_cores())


def cpu_from_text(files: dict[str, str], *, machine: str, cores: int) -> CpuFacts:
    """The same from recorded text.

    Args:
        files: absolute path to content.
        machine: as ``uname -m`` prints it.
        cores: that a process may use.

    Raises:
        DeviceError: an architecture for which edgekd knows no quantization rule.
    """
    arch = ARCHITECTURES.get(machine.lower())
    if arch is None:
        fix = "name a device file with --device"
        allowed = "x86_64, aarch64"
        raise DeviceError(fault("cpu", "unknown architecture", got=machine, allowed=allowed, fix=fix))
    return CpuFacts(
        title=model_name(files) or machine,
        arch=arch,
        cores=cores,
        flags=common_flags(files.get("/proc/cpuinfo", "")),
        caches={name: size * 1024 for name, size in cache_sizes(files).items()},
        memory_bytes=memory_bytes(files.get("/proc/meminfo", "")),
        kinds=core_kinds(files, arch),
    )


def usable_cores() -> int:
    """Logical cores that the scheduler may give to this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
