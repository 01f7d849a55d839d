"""What happened to the machine during a measurement, as warnings."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.profiles.cautions import Caution, CautionKind
from edgekd.profiles.machine import MachineState

_SHARED_CORES = 0.5
_WAITED = 0.05  # of the time in which a model could have run; a quiet core gives less than 0.01
_STOLEN = 0.05  # of a core
_CLOCK_MOVED = 0.05
_WARMER_C = 10.0
_MIN_SECONDS = 0.3  # below, the ticks of /proc/stat are too coarse


def machine_cautions(
    before: MachineState,
    after: MachineState,
    *,
    threads: int,
    cores: int,
    seconds: float,
    own_seconds: float,
    wait_seconds: float | None = None,
    between: Sequence[MachineState] = (),
) -> list[Caution]:
    """What happened to the machine between two looks.

    Args:
        threads: that the measured model keeps busy at once.
        cores: cores that the measurement may use.
        seconds: wall time between the looks.
        own_seconds: processor time that the measured models used in it.
        wait_seconds: time in which they could have run but another had the core.
        between: looks right after each turn, when the clock is still that of the work.
    """
    found = []

    def warn(kind: CautionKind, text: str) -> None:
        found.append(Caution(kind, text))

    if threads > cores:
        warn(CautionKind.TOO_MANY_THREADS, f"{threads} threads on {cores} cores: they take turns")
    if slow := sorted(after.governors - {"performance"}):
        names = ", ".join(slow)
        warn(CautionKind.GOVERNOR,
             f"the clock governor is {names}, not performance: short runs may see a low clock")  # fmt: skip
    shared = _shared(before, after, threads, cores, seconds, own_seconds, wait_seconds)
    if shared:
        warn(CautionKind.CORES_SHARED, f"{shared}: stop them and measure again")
    stolen = after.stolen_seconds - before.stolen_seconds
    if seconds >= _MIN_SECONDS and stolen >= _STOLEN * seconds:
        warn(CautionKind.STOLEN,
             f"the hypervisor gave {stolen / seconds:.0%} of a core's time to other machines meanwhile")  # fmt: skip
    if after.swapped_pages > before.swapped_pages:
        pages = after.swapped_pages - before.swapped_pages
        warn(CautionKind.SWAP, f"{pages} pages were swapped during the rounds: memory is short")
    if after.throttle_events > before.throttle_events or any(
        state.throttled_now for state in (*between, after)
    ):
        warn(CautionKind.THROTTLED, "the processor was throttled meanwhile: cool it, or check the power supply, "
             "and measure again")  # fmt: skip
    clocks = [state.clock_mhz for state in between if state.clock_mhz]
    if clocks and max(clocks) - min(clocks) > _CLOCK_MOVED * max(clocks):
        warn(CautionKind.CLOCK_MOVED, f"the clock moved between {min(clocks):.0f} and {max(clocks):.0f} MHz from "
             "round to round: fix it, or read ratios")  # fmt: skip
    if warmer := _warmest(before, after):
        zone, cold, hot = warmer
        warn(CautionKind.TEMPERATURE, f"{zone} went from {cold:.0f} to {hot:.0f} °C: what ran later ran "
             f"{'hotter' if hot > cold else 'cooler'}; warm up longer, or cool it")  # fmt: skip
    return found


def _shared(
    before: MachineState,
    after: MachineState,
    threads: int,
    cores: int,
    seconds: float,
    own: float,
    waited: float | None,
) -> str | None:
    """Two signs: the models waited for a core, which is certain; or others were busy, perhaps elsewhere."""
    said = []
    # More threads than cores wait for each other.
    if waited is not None and threads <= cores and waited > _WAITED * (own + waited):
        said.append(f"the model waited {waited / (own + waited):.0%} of its time for a core that others had")
    if before.busy_seconds is not None and after.busy_seconds is not None and seconds >= _MIN_SECONDS:
        others = max(0.0, (after.busy_seconds - before.busy_seconds - own) / seconds)
        if others >= _SHARED_CORES:
            said.append(f"other processes used {others:.1f} of {cores} cores meanwhile")
    return ", and ".join(said) or None


def _warmest(before: MachineState, after: MachineState) -> tuple[str, float, float] | None:
    """The zone whose temperature moved most, when it moved much."""
    first = dict(before.temperatures_c)
    moved = [(name, first[name], now) for name, now in after.temperatures_c if name in first]
    zone = max(moved, key=lambda entry: abs(entry[2] - entry[1]), default=None)
    return zone if zone and abs(zone[2] - zone[1]) >= _WARMER_C else None
