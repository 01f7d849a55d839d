"""The state of the machine around a measurement, and what it says against the numbers.

Linux tells; on other systems everything stays empty and nothing is warned of.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekd.profiles.cautions import Caution, CautionKind

_TICKS_PER_SECOND = 100  # USER_HZ: fixed at 100 in what Linux shows to user space
_SHARED_CORES = 0.5
_MIN_SECONDS = 0.3  # below, the ticks of /proc/stat are too coarse


@dataclass(frozen=True)
class MachineState:
    """One look at counters that only grow, and at settings.

    Attributes:
        governors: frequency governors of all cores; empty where there are none, as in most virtual machines.
        busy_seconds: processor time that all processes have used, with what the hypervisor stole.
        swapped_pages: pages swapped in or out since boot.
        throttle_events: thermal throttle events since boot.
        throttled_now: a Raspberry Pi's firmware says that it lowers the clock now.
    """

    governors: frozenset[str]
    busy_seconds: float | None
    swapped_pages: int
    throttle_events: int
    throttled_now: bool


def read_machine(root: Path = Path("/")) -> MachineState:
    """Read ``/proc`` and ``/sys`` below ``root``."""
    cpus = root / "sys/devices/system/cpu"
    swapped = [
        line.split()[1] for line in _read(root / "proc/vmstat").splitlines() if line.startswith("pswp")
    ]
    counts = [_read(path) for path in cpus.glob("cpu[0-9]*/thermal_throttle/*_throttle_count")]
    # Bits 0 to 3: under-voltage, frequency capped, throttled, soft temperature limit, all as of now.
    firmware = _read(root / "sys/devices/platform/soc/soc:firmware/get_throttled").strip()
    return MachineState(
        governors=frozenset(
            filter(None, (_read(p).strip() for p in cpus.glob("cpu[0-9]*/cpufreq/scaling_governor")))
        ),
        busy_seconds=_busy_seconds(_read(root / "proc/stat")),
        swapped_pages=sum(int(pages) for pages in swapped),
        throttle_events=sum(int(count) for count in counts if count.strip().isdigit()),
        throttled_now=bool(int(firmware, 16) & 0xF) if firmware else False,
    )


def machine_cautions(
    before: MachineState, after: MachineState, *, threads: int, cores: int, seconds: float, own_seconds: float
) -> list[Caution]:
    """What happened to the machine between two looks.

    Args:
        cores: cores that the measurement may use.
        seconds: wall time between the looks.
        own_seconds: processor time that the measured models used in it.
    """
    found = []
    if threads > cores:
        text = f"{threads} threads on {cores} cores: they take turns"
        found.append(Caution(CautionKind.TOO_MANY_THREADS, text))
    if slow := sorted(after.governors - {"performance"}):
        text = f"the clock governor is {', '.join(slow)}, not performance: short runs may see a low clock"
        found.append(Caution(CautionKind.GOVERNOR, text))
    if before.busy_seconds is not None and after.busy_seconds is not None and seconds >= _MIN_SECONDS:
        others = max(0.0, (after.busy_seconds - before.busy_seconds - own_seconds) / seconds)
        if others >= _SHARED_CORES:
            text = (
                f"other processes used {others:.1f} of {cores} cores meanwhile: stop them and measure again"
            )
            found.append(Caution(CautionKind.CORES_SHARED, text))
    if after.swapped_pages > before.swapped_pages:
        pages = after.swapped_pages - before.swapped_pages
        text = f"{pages} pages were swapped during the rounds: memory is short"
        found.append(Caution(CautionKind.SWAP, text))
    if after.throttle_events > before.throttle_events or after.throttled_now:
        text = "the processor was throttled meanwhile: cool it, or check the power supply, and measure again"
        found.append(Caution(CautionKind.THROTTLED, text))
    return found


def _busy_seconds(stat: str) -> float | None:
    fields = stat.split("\n", 1)[0].split()
    if len(fields) < 9 or fields[0] != "cpu":
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_SECOND


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
