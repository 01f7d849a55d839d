"""What the fit on published latencies made of a core's manual, and how near a board is to what was published."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekd.profiles.estimation.hardware import Hardware

_NEAR = math.log(1.5)


@dataclass(frozen=True)
class Calibration:
    """Attributes:
    waits_mac, waits_other: real cycles over published ones.
    share: of the memory bandwidth that a board's facts give.
    spread: 80 % of unseen models lie within this factor of the prediction.
    fitted: on published latencies of this very core.
    ghz, bandwidth: of the board that they were published for, GHz and GB/s.
        smallest: instructions of the smallest network among them.
    """

    waits_mac: float
    waits_other: float
    share: float
    spread: float
    fitted: bool
    ghz: float = 0.0
    bandwidth: float = 0.0
    smallest: float = 0.0

    def covers(self, board: Hardware) -> bool:
        """The board's clock and memory are near those that were published."""
        pairs = ((board.clusters[0].ghz, self.ghz), (board.bandwidth, self.bandwidth))
        return self.fitted and all(abs(math.log(ours / theirs)) < _NEAR for ours, theirs in pairs)


def speed_up(threads: int) -> float:
    """Of several threads over one, by Amdahl's law; fitted to the published 1.71, 2.27, 2.53 of a Raspberry Pi 4."""
    serial = float(timing()["serial_share"])
    return 1.0 / (serial + (1.0 - serial) / threads)


def calibration(core: str, style: str) -> Calibration:
    """Of a core by its name, such as ``Cortex-A72``; of one that was not fitted, its relative's.

    Args:
        style: how wide it is built, see ``timing.json``.
    """
    fitted = timing()["fitted"]
    if core in fitted:
        return Calibration(**fitted[core], fitted=True)
    relative = timing()["relatives"][style]
    wider = timing()["spread_of_relatives" if relative["same_style"] else "spread_of_other_cores"]
    return Calibration(**{**fitted[relative["core"]], "spread": float(wider)}, fitted=False)


@cache
def timing() -> Mapping[str, Any]:
    """Published cycles and fitted parameters."""
    text = resources.files("edgekd.profiles.emulation").joinpath("timing.json").read_text(encoding="utf-8")
    document: Mapping[str, Any] = json.loads(text)
    return document
