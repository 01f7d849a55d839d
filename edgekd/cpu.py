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

_ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
# Either flag gives ONNX Runtime an 8-bit dot product that accumulates in 32 bits and cannot saturate.
_VNNI_FLAGS = frozenset({"avx512_vnni", "avx_vnni"})
# Highest opset by installed ONNX Runtime. 1.20: onnxruntime.ai/docs/reference/compatibility.html.
# 1.31: measured, a graph stamped 26 loads in 1.31.1 and one stamped 27 is refused.
_RUNTIME_OPSETS = (((1, 31), 26), ((1, 20), 21))


@dataclass(frozen=True)
class CpuFacts:
    """What the operating system says about the processor.

    Attributes:
        cores: logical cores that this process may use.
        flags: instruction-set flags as Linux spells them; empty where the system does not tell.
        caches: name such as ``L2`` or ``L1-data`` to size in bytes, of core 0.
    """

    title: str
    arch: str
    cores: int
    flags: frozenset[str]
    caches: dict[str, int]
    memory_bytes: int

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

    def device_fields(self) -> dict[str, Any]:
        """The fields of a device description that this machine decides; what is unknown is empty or 0."""
        source = "read from this machine: /proc, /sys"
        facts: list[dict[str, Any]] = [
            {"key": f"cache_{name}", "value": size, "unit": "bytes", "source": source}
            for name, size in self.caches.items()
        ]
        facts.append(
            {"key": "cpu_flags", "value": " ".join(sorted(self.flags)), "unit": "", "source": source}
        )
        version = installed_runtime()
        release = tuple(int(part) for part in version.split(".")[:2] if part)
        return {
            "title": self.title,
            "arch": self.arch,
            "cores": self.cores,
            "scheme": self.scheme,
            "kernel_rule": "x86" if self.arch == "x86_64" else "arm",
            "memory_bytes": self.memory_bytes,
            "runtime_version": version,
            "opset_max": next((opset for least, opset in _RUNTIME_OPSETS if release >= least), 0),
            "facts": facts,
        }


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
    machine = machine or platform.machine()
    arch = _ARCHITECTURES.get(machine.lower())
    if arch is None:
        raise DeviceError(
            fault(
                "cpu",
                "unknown architecture",
                got=machine,
                allowed="x86_64, aarch64",
                fix="name a device file with --device",
            )
        )
    cpuinfo = _read(root / "proc/cpuinfo")
    flags = _field(cpuinfo, "flags") or _field(cpuinfo, "Features")
    title = _read(root / "proc/device-tree/model").rstrip("\0\n") or _field(cpuinfo, "model name") or machine
    return CpuFacts(
        title=title,
        arch=arch,
        cores=cores or usable_cores(),
        flags=frozenset(flags.split()),
        caches=_caches(root / "sys/devices/system/cpu/cpu0/cache"),
        memory_bytes=int((_field(_read(root / "proc/meminfo"), "MemTotal").split() or ["0"])[0]) * 1024,
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


def _field(text: str, name: str) -> str:
    """The value of the first ``name : value`` line."""
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        if separator and key.strip() == name:
            return value.strip()
    return ""


def _caches(folder: Path) -> dict[str, int]:
    caches = {}
    units = {"K": 1024, "M": 1024**2}
    for index in sorted(folder.glob("index*")):
        level, kind, size = (_read(index / name).strip() for name in ("level", "type", "size"))
        if level and size[:-1].isdigit() and size[-1] in units:
            name = f"L{level}" if kind == "Unified" else f"L{level}-{kind.lower()}"
            caches[name] = int(size[:-1]) * units[size[-1]]
    return caches
