"""What happened to the machine during a measurement, as warnings."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.profiles.cautions import Caution, CautionKind
from edgekd.profiles.machine import MachineState

_SHARED_CORES = 0.5
_WAITED = 0.05  # of the time in which a model could have run; a quiet core gives less than 0.01
_STOLEN = 0.05  # of a core
_HELD = 0.01  # of the time; each hold lasts tens of milliseconds, so few spoil p90
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
    model_seconds: float | None = None,
    between: Sequence[MachineState] = (),
) -> list[Caution]:
    """What happened to the machine between two looks.

    Args:
        threads: that the measured model keeps busy at once.
        cores: cores that the measurement may use.
        seconds: wall time between the looks.
        own_seconds: processor time that the measured models used in it.
        wait_seconds: time in which the model that is warned of could have run but another had its core.
        model_seconds: processor time that this model used; ``own_seconds`` where it is the only one.
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
    said = []
    # More threads than cores wait for each other.
    if wait_seconds is not None and threads <= cores:
        said += _waited(wait_seconds, own_seconds if model_seconds is None else model_seconds)
    if seconds >= _MIN_SECONDS:
        said += _others(before, after, cores, seconds, own_seconds)
    if shared := ", and ".join(said):
        warn(CautionKind.CORES_SHARED, f"{shared}: stop them and measure again")
    stolen = after.stolen_seconds - before.stolen_seconds
    if seconds >= _MIN_SECONDS and stolen >= _STOLEN * seconds:
        warn(CautionKind.STOLEN,
             f"the hypervisor gave {stolen / seconds:.0%} of a core's time to other machines meanwhile")  # fmt: skip
    held = after.quota_seconds - before.quota_seconds
    if seconds > 0 and held >= _HELD * seconds:
        warn(CautionKind.QUOTA, f"the container's quota of processor time held the model for {held:.1f} s: give it "
             "more, or read the fastest samples alone")  # fmt: skip
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


def _waited(waited: float, ran: float) -> list[str]:
    """Certain: the scheduler itself counts the time."""
    if waited <= _WAITED * (ran + waited):
        return []
    return [f"the model waited {waited / (ran + waited):.0%} of its time for a core that others had"]


def _others(
    before: MachineState, after: MachineState, cores: int, seconds: float, own_seconds: float
) -> list[str]:
    """A sign: others were busy, perhaps on other cores; caches and memory are shared all the same."""
    if before.busy_seconds is None or after.busy_seconds is None:
        return []
    others = max(0.0, (after.busy_seconds - before.busy_seconds - own_seconds) / seconds)
    return (
        [f"other processes used {others:.1f} of {cores} cores meanwhile"] if others >= _SHARED_CORES else []
    )


def _warmest(before: MachineState, after: MachineState) -> tuple[str, float, float] | None:
    """The zone whose temperature moved most, when it moved much."""
    first = dict(before.temperatures_c)
    moved = [(name, first[name], now) for name, now in after.temperatures_c if name in first]
    zone = max(moved, key=lambda entry: abs(entry[2] - entry[1]), default=None)
    return zone if zone and abs(zone[2] - zone[1]) >= _WARMER_C else None
