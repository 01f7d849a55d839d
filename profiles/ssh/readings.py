"""What boards' own programs print, as numbers. Pure functions; what does not parse is None or left out.

Sources: ``vcgencmd``: Raspberry Pi documentation, "vcgencmd"; ``tegrastats``: NVIDIA Jetson Linux Developer
Guide, "Tegrastats Utility" (L4T 32, 35 and 36); ``nvpmodel``: the same guide, "Power Mode Controls".
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# vcgencmd get_throttled: bits 0 to 3 are now, the same sixteen higher are since boot.
_REASONS = (
    "the supply voltage is too low",
    "the clock is capped",
    "it is throttled",
    "it is at its soft temperature limit",
)
_SINCE_BOOT = 16

# Rails whose sum is the whole module; the first set that a board has all of. The others are parts of these.
_TOTALS = (
    ("VDD_IN",),  # TX1, TX2, Xavier NX, Orin NX, Orin Nano
    ("POM_5V_IN",),  # Nano
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),  # AGX Xavier
)
_RAIL = re.compile(r"(?<!\S)([A-Z][A-Z0-9_]*) (\d+)(?:mW)?/(\d+)(?:mW)?(?!\S)")
_NO_RAILS = {"RAM", "SWAP", "IRAM"}


def throttled_bits(told: str) -> int | None:
    """``throttled=0x50005``."""
    found = re.fullmatch(r"throttled=0x([0-9a-fA-F]{1,8})", told.strip())
    return int(found.group(1), 16) if found else None


def throttle_reasons(before: int, later: list[int]) -> list[str]:
    """What slowed the board between two looks.

    Args:
        before: bits before the run: what has happened since boot by then is not the run's.
        later: bits at every later look.
    """
    bits = 0
    for look in later:
        new = (look & ~before) >> _SINCE_BOOT
        bits |= (look | new) & 0xF
    return [reason for bit, reason in enumerate(_REASONS) if bits >> bit & 1]


def temperature_c(told: str) -> float | None:
    """``temp=42.8'C``."""
    found = re.fullmatch(r"temp=(-?\d+(?:\.\d+)?)'C", told.strip())
    return float(found.group(1)) if found else None


def clock_mhz(told: str) -> float | None:
    """``frequency(48)=1500345728``, in hertz."""
    found = re.fullmatch(r"frequency\(\d+\)=(\d+)", told.strip())
    return int(found.group(1)) / 1e6 if found else None


def power_mode(told: str) -> str | None:
    """``NV Power Mode: MODE_15W_6CORE``, then the mode's number on a line of its own; warnings may stand before."""
    found = re.search(r"^NV Power Mode:[ \t]*(\w[\w .+-]{0,39}?)[ \t]*$", told, re.MULTILINE)
    return found.group(1) if found else None


def rails_mw(line: str) -> dict[str, int]:
    """Milliwatts now of each rail in a line of ``tegrastats``: ``VDD_IN 5336/4970`` or ``VDD_IN 5336mW/4970mW``.

    The second number is the mean since ``tegrastats`` was started.
    """
    return {name: int(now) for name, now, _ in _RAIL.findall(line) if name not in _NO_RAILS}


def total_rails(rails: Mapping[str, float]) -> tuple[str, ...]:
    """The rails that together are the whole module; none where the board's rails are unknown."""
    return next((names for names in _TOTALS if set(names) <= set(rails)), ())
