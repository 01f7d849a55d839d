"""What ``benchmarks/latency/fit.py`` found, as data: parameters, offsets of boards, errors, and what they rest on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class Fitted:
    """One fit: of processors or of GPUs.

    Attributes:
        values: parameters by name; a name that is not there is zero.
        boards: logarithm by which a board is slower than its facts say, by ``device|runtime``.
        intervals: quantiles of what left-out rows were off by, by kind of case; see ``ranges.py``.
        evidence: how many published rows stand behind runtime, precision, style of core and kind of network.
        provenance: rows, date, seed, errors.
        smallest: multiply-accumulates of the smallest published network, by runtime.
    """

    values: Mapping[str, float]
    boards: Mapping[str, float]
    intervals: Mapping[str, Sequence[float]]
    evidence: Mapping[str, int]
    provenance: Mapping[str, Any]
    smallest: Mapping[str, float] = field(default_factory=dict)


@cache
def fitted(kind: str) -> Fitted:
    """``cpu`` or ``gpu``."""
    text = (
        resources.files("edgekd.profiles.estimation.parameters").joinpath(f"{kind}.json").read_text("utf-8")
    )
    document: dict[str, Any] = json.loads(text)
    return Fitted(**document)
