"""The state of the machine around a measurement, read from Linux; elsewhere everything stays empty.

Standard library only: a board's agent can carry this file. What the state says against the numbers is in
``machine_cautions.py``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

_TICKS_PER_SECOND = 100  # USER_HZ: fixed at 100 in what Linux shows to user space


@dataclass(frozen=True)
class MachineState:
    """One look at counters that only grow, and at settings.

    Attributes:
        governors: frequency governors of all cores; empty where there are none, as in most virtual machines.
        busy_seconds: processor time that all processes have used, with what the hypervisor stole.
        swapped_pages: pages swapped in or out since boot.
        throttle_events: thermal throttle events since boot.
        throttled_now: a Raspberry Pi's firmware says that it lowers the clock now.
        stolen_seconds: of ``busy_seconds``, what the hypervisor gave to other machines.
        clocks_mhz: of each core now.
        temperatures_c: name and degrees Celsius of each thermal zone.
        quota_seconds: time for which a container's quota of processor time held its processes.
    """

    governors: frozenset[str]
    busy_seconds: float | None
    swapped_pages: int
    throttle_events: int
    throttled_now: bool
    stolen_seconds: float = 0.0
    clocks_mhz: tuple[float, ...] = ()
    temperatures_c: tuple[tuple[str, float], ...] = ()
    quota_seconds: float = 0.0

    @property
    def clock_mhz(self) -> float | None:
        """Of the fastest core: the one that has just worked, when the others idle."""
        return max(self.clocks_mhz, default=None)

    @property
    def temperature_c(self) -> float | None:
        """Of the hottest zone."""
        return max((degrees for _, degrees in self.temperatures_c), default=None)


def read_machine(root: Path = Path("/"), *, cores: Collection[int] | None = None) -> MachineState:
    """Read ``/proc`` and ``/sys`` below ``root``.

    Args:
        cores: whose processor time counts; all where None. A container sees its host's whole ``/proc/stat``.
    """
    cpus = root / "sys/devices/system/cpu"
    swapped = [
        line.split()[1] for line in _read(root / "proc/vmstat").splitlines() if line.startswith("pswp")
    ]
    counts = [_read(path) for path in cpus.glob("cpu[0-9]*/thermal_throttle/*_throttle_count")]
    # Bits 0 to 3: under-voltage, frequency capped, throttled, soft temperature limit, all as of now.
    firmware = _read(root / "sys/devices/platform/soc/soc:firmware/get_throttled").strip()
    busy, stolen = _processor_seconds(_read(root / "proc/stat"), cores)
    return MachineState(
        governors=frozenset(
            filter(None, (_read(p).strip() for p in cpus.glob("cpu[0-9]*/cpufreq/scaling_governor")))
        ),
        busy_seconds=busy,
        swapped_pages=sum(int(pages) for pages in swapped),
        throttle_events=sum(int(count) for count in counts if count.strip().isdigit()),
        throttled_now=bool(int(firmware, 16) & 0xF) if firmware else False,
        stolen_seconds=stolen,
        clocks_mhz=_clocks(root),
        temperatures_c=_temperatures(root / "sys/class/thermal"),
        quota_seconds=_quota_seconds(root / "sys/fs/cgroup"),
    )


def read_own_cores() -> MachineState:
    """The machine as it looks from the cores that this process and those that it starts may use."""
    return read_machine(cores=os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None)


def _processor_seconds(stat: str, cores: Collection[int] | None) -> tuple[float | None, float]:
    """Busy with what was stolen, and stolen alone."""
    wanted = {"cpu"} if cores is None else {f"cpu{core}" for core in cores}
    busy, stolen, found = 0, 0, False
    for line in stat.splitlines():
        fields = line.split()
        if len(fields) >= 9 and fields[0] in wanted:
            user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[1:9])
            busy += user + nice + system + irq + softirq + steal
            stolen += steal
            found = True
    return (busy / _TICKS_PER_SECOND if found else None), stolen / _TICKS_PER_SECOND


def _quota_seconds(folder: Path) -> float:
    """Version 2 of control groups counts microseconds, version 1 nanoseconds."""
    for name, field, scale in (("cpu.stat", "throttled_usec", 1e6), ("cpu/cpu.stat", "throttled_time", 1e9)):
        for line in _read(folder / name).splitlines():
            key, _, value = line.partition(" ")
            if key == field and value.isdigit():
                return int(value) / scale
    return 0.0


def _clocks(root: Path) -> tuple[float, ...]:
    """From the frequency driver (kHz), else from what x86 writes into ``cpuinfo``."""
    paths = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    read = [_read(path).strip() for path in paths]
    if found := tuple(int(text) / 1000 for text in read if text.isdigit()):
        return found
    cpuinfo = _read(root / "proc/cpuinfo")
    return tuple(float(text) for text in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", cpuinfo, re.MULTILINE))


def _temperatures(folder: Path) -> tuple[tuple[str, float], ...]:
    """Zones that answer; the kernel gives thousandths of a degree."""
    found: list[tuple[str, float]] = []
    for zone in sorted(folder.glob("thermal_zone[0-9]*")):
        text = _read(zone / "temp").strip()
        if re.fullmatch(r"-?\d+", text):
            name = _read(zone / "type").strip() or zone.name
            if name in dict(found):
                name = f"{name} ({zone.name})"
            found.append((name, int(text) / 1000))
    return tuple(found)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
