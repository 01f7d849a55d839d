"""What a core or a GPU of a kind does in a cycle, looked up by the name that a board's facts give."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class CoreKind:
    """One core micro-architecture (``cores.json`` explains the figures and names the sources).

    Attributes:
        style: cores whose kernels behave alike: ``in-order``, ``narrow``, ``wide``, ``carmel``, ``x86-...``.
        flop16: 0 where fp16 is storage only.
        dot: has an 8-bit dot-product instruction.
        known: the name was found; otherwise this is the stand-in for its instruction set.
    """

    name: str
    style: str
    flop32: float
    flop16: float
    op8: float
    dot: bool
    bandwidth: float
    l1d_kib: float
    l2_kib: float
    l2_shared_by: int
    ghz: float
    known: bool = True

    @property
    def x86(self) -> bool:
        return self.style.startswith("x86")


@dataclass(frozen=True)
class GpuKind:
    """One GPU generation. ``tensor_flop16``: flop a cycle of one tensor core."""

    generation: str
    cores_per_sm: int
    fp16_rate: float
    tensor_flop16: float
    int8: bool
    sparse: bool
    l2_kib: float
    mhz: float
    bandwidth_share: float


@cache
def table() -> Mapping[str, Any]:
    text = resources.files("edgekd.profiles.estimation").joinpath("cores.json").read_text(encoding="utf-8")
    document: Mapping[str, Any] = json.loads(text)
    return document


def core_kind(name: str | None, arch: str) -> CoreKind:
    """The kind of core behind a name such as ``Cortex-A72 (BCM2711)``; the longest match wins.

    >>> core_kind("Cortex-A76AE", "aarch64").name
    'Cortex-A76'
    """
    found: tuple[int, Mapping[str, Any]] | None = None
    for row in table()["cores"]:
        match = re.search(rf"(?<![a-z0-9])(?:{row['match']})(?![0-9])", (name or "").lower())
        if match and row["style"].startswith("x86") == (arch == "x86_64"):
            length = match.end() - match.start()
            if found is None or length > found[0]:
                found = (length, row)
    if found is not None:
        return _core(found[1], known=True)
    stand_in = table()["unknown"][arch]
    return _core(next(row for row in table()["cores"] if row["name"] == stand_in), known=False)


def gpu_kind(name: str) -> GpuKind | None:
    """The GPU generation behind a text such as ``Ampere (CC 8.7)``."""
    for row in table()["gpus"]:
        if re.search(rf"(?<![a-z0-9])(?:{row['match']})", name.lower()):
            return GpuKind(**{key: row[key] for key in GpuKind.__dataclass_fields__})
    return None


def _core(row: Mapping[str, Any], *, known: bool) -> CoreKind:
    values = {key: row[key] for key in CoreKind.__dataclass_fields__ if key != "known"}
    return CoreKind(**values, known=known)
