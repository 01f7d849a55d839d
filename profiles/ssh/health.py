"""How the board was during a measurement, from what it said before, after each turn, and at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from edgekd.profiles.cautions import Caution, CautionKind
from edgekd.profiles.ssh.readings import (
    clock_mhz,
    power_mode,
    rails_mw,
    temperature_c,
    throttle_reasons,
    throttled_bits,
    total_rails,
)

_SUPPLY = 0x10001  # under-voltage, now and since boot
_MIN_LINES = 5  # of power, for a mean that says something

Told = Mapping[str, str]


@dataclass(frozen=True)
class BoardHealth:
    """Health of the board while one model was measured. What the board does not tell is empty or None.

    Attributes:
        throttled: what slowed the board during the rounds, in words.
        throttled_bits: of ``vcgencmd get_throttled``: before, after each turn, at the end.
        temperatures_c, clocks_mhz: at the same moments, as the Raspberry Pi's firmware has them.
        power_mode: of a Jetson.
        power_mw: mean power during this model's turns, over ``power_rails`` together.
        power_samples: that the mean is of.
        rails_mw: mean of each rail.
        energy_mj: millijoules of the module for one inference of a batch: mean power times mean latency, idle
            power included.
    """

    throttled: tuple[str, ...] = ()
    throttled_bits: tuple[int, ...] = ()
    temperatures_c: tuple[float, ...] = ()
    clocks_mhz: tuple[float, ...] = ()
    power_mode: str | None = None
    power_mw: float | None = None
    power_samples: int = 0
    power_rails: tuple[str, ...] = ()
    rails_mw: Mapping[str, float] = field(default_factory=dict)
    energy_mj: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def board_health(looks: Sequence[Told], monitor: Sequence[str], mean_ms: float) -> BoardHealth:
    """Put together what was said.

    Args:
        looks: what each program printed, by command line: before the rounds, after each, at the end.
        monitor: lines of ``tegrastats`` from this model's turns.
        mean_ms: of the model's latency.
    """
    bits = _each(throttled_bits, looks, "vcgencmd get_throttled")
    samples = [rails for rails in map(rails_mw, monitor) if rails]
    names = set(samples[0]).intersection(*samples) if samples else set()
    means = {name: float(np.mean([rails[name] for rails in samples])) for name in sorted(names)}
    total = total_rails(means) if len(samples) >= _MIN_LINES else ()
    power = sum(means[name] for name in total) if total else None
    modes = _each(power_mode, looks, "nvpmodel -q")
    return BoardHealth(
        throttled=tuple(throttle_reasons(bits[0], bits[1:])) if bits else (),
        throttled_bits=tuple(bits),
        temperatures_c=tuple(_each(temperature_c, looks, "vcgencmd measure_temp")),
        clocks_mhz=tuple(_each(clock_mhz, looks, "vcgencmd measure_clock arm")),
        power_mode=modes[-1] if modes else None,
        power_mw=power,
        power_samples=len(samples),
        power_rails=total,
        rails_mw=means,
        energy_mj=power * mean_ms / 1e3 if power is not None else None,
    )


def health_cautions(health: BoardHealth) -> list[Caution]:
    """What the board's health says against the number."""
    if not health.throttled:
        return []
    bits = next((bits for bits in reversed(health.throttled_bits[1:]) if bits), 0)
    hot = f", {max(health.temperatures_c):.0f} °C" if health.temperatures_c else ""
    what = "the board was throttled meanwhile" if bits & ~_SUPPLY else "the board's supply was weak meanwhile"
    text = (
        f"{what} (get_throttled 0x{bits:x}{hot}): {', '.join(health.throttled)}; "
        "cool it, or give it a better power supply, and measure again"
    )
    return [Caution(CautionKind.THROTTLED, text)]


def _each(parse: Any, looks: Sequence[Told], command: str) -> list[Any]:
    found = [parse(look[command]) for look in looks if command in look]
    return [value for value in found if value is not None]
