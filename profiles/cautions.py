"""Everything that may make a latency wrong, as data: each kind once, with its own words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class CautionKind(StrEnum):
    """Why a measured number may mislead."""

    GOVERNOR = "governor"
    CORES_SHARED = "cores-shared"
    STOLEN = "stolen"
    QUOTA = "quota"
    TOO_MANY_THREADS = "too-many-threads"
    SWAP = "swap"
    THROTTLED = "throttled"
    CLOCK_MOVED = "clock-moved"
    TEMPERATURE = "temperature"
    FEW_SAMPLES = "few-samples"
    OUTLIERS = "outliers"
    DRIFT = "drift"
    SPREAD = "spread"
    TWO_LEVELS = "two-levels"
    TARGET_MISSED = "target-missed"
    RESUMED = "resumed"


@dataclass(frozen=True)
class Caution:
    """One warning. ``str()`` is the sentence for a person; ``kind`` is for programs."""

    kind: CautionKind
    text: str

    def __str__(self) -> str:
        return self.text
