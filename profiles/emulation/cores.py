"""Which core is emulated for a board, and what the board's ``/proc`` and ``/sys`` say to the runtime on it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.device_facts import clusters, fact_number
from edgekd.errors import DeviceError, fault

if TYPE_CHECKING:
    from edgekd.device_spec import DeviceSpec


@dataclass(frozen=True)
class EmulatedCore:
    """Attributes:
    name: such as ``Cortex-A72``.
    emulator: the core that qemu plays (``-cpu``).
    style: how wide it is built: a row of ``timing.json``.
    exact: qemu plays this very core, not one with the same instruction set.
    caches: data caches from the nearest to the last, each ``(KiB, ways)``, as one core sees them.
    """

    name: str
    emulator: str
    style: str
    exact: bool
    implementer: str
    part: str
    features: str
    caches: tuple[tuple[int, int], ...]


def emulated_core(spec: DeviceSpec) -> EmulatedCore:
    """The board's fastest cores.

    Raises:
        DeviceError: no Arm board, or its facts name no core that can be emulated.
    """
    where = f"device {spec.name}"
    if spec.arch != "aarch64":
        what = "only Arm boards are emulated"
        raise DeviceError(fault(where, what, got=spec.arch, fix="use --method measure or estimate"))
    first = clusters(spec)[0]
    row = _row(first.core or spec.title)
    if row is None:
        known = ", ".join(row["name"] for row in _table())
        got = first.core or "no fact cpu_core"
        raise DeviceError(
            fault(where, "its core cannot be emulated", got=got, allowed=known, fix="use --method estimate")
        )
    sizes = (first.l1d_kib, first.l2_kib, fact_number(spec, "l3"))
    usual = (row["l1d"], row["l2"], row["l3"])
    levels = [(int(size or kib), ways) for size, (kib, ways) in zip(sizes, usual, strict=True)]
    return EmulatedCore(
        name=row["name"],
        emulator=row["emulator"],
        style=row["style"],
        exact=row["emulator"] == row["name"].lower(),
        implementer=row.get("implementer", "0x41"),
        part=row["part"],
        features=row["features"],
        caches=tuple(level for level in levels if level[0]),
    )


def present_board(core: EmulatedCore, root: Path, folder: Path) -> Path:
    """A view of the userland whose ``/proc`` and ``/sys`` are the board's: one such core.

    Without them the runtime reads this machine's files and takes the core for something else.

    Returns:
        the folder, filled with links to the userland.
    """
    for entry in root.iterdir():
        if entry.name not in ("proc", "sys"):
            (folder / entry.name).symlink_to(entry)
    files = {
        "proc/cpuinfo": f"processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: {core.features}\n"
        f"CPU implementer\t: {core.implementer}\nCPU architecture: 8\nCPU variant\t: 0x0\n"
        f"CPU part\t: {core.part}\nCPU revision\t: 3\n\n",
        "sys/devices/system/cpu/possible": "0\n",
        "sys/devices/system/cpu/present": "0\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="ascii")
    return folder


def _row(name: str) -> Mapping[str, Any] | None:
    return next(
        (row for row in _table() if re.search(rf"\b(?:{row['match']})(?![0-9a-z])", name.lower())), None
    )


@cache
def _table() -> tuple[Mapping[str, Any], ...]:
    text = resources.files("edgekd.profiles.emulation").joinpath("cores.json").read_text(encoding="utf-8")
    return tuple(json.loads(text)["cores"])
