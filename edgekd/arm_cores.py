"""Names of Arm cores by the numbers that /proc/cpuinfo prints.

Implementer and part are fields of the register MIDR_EL1; the numbers are those of Arm's technical reference
manuals, as util-linux (sys-utils/lscpu-arm.c) lists them too.
"""

from __future__ import annotations

from collections.abc import Mapping

# fmt: off
_ARM: Mapping[int, str] = {
    0xD01: "Cortex-A32", 0xD02: "Cortex-A34", 0xD03: "Cortex-A53", 0xD04: "Cortex-A35", 0xD05: "Cortex-A55",
    0xD06: "Cortex-A65", 0xD07: "Cortex-A57", 0xD08: "Cortex-A72", 0xD09: "Cortex-A73", 0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76", 0xD0C: "Neoverse-N1", 0xD0D: "Cortex-A77", 0xD0E: "Cortex-A76AE",
    0xD40: "Neoverse-V1", 0xD41: "Cortex-A78", 0xD42: "Cortex-A78AE", 0xD43: "Cortex-A65AE",
    0xD44: "Cortex-X1", 0xD46: "Cortex-A510", 0xD47: "Cortex-A710", 0xD48: "Cortex-X2", 0xD49: "Neoverse-N2",
    0xD4B: "Cortex-A78C", 0xD4C: "Cortex-X1C", 0xD4D: "Cortex-A715", 0xD4E: "Cortex-X3", 0xD4F: "Neoverse-V2",
    0xD80: "Cortex-A520", 0xD81: "Cortex-A720", 0xD82: "Cortex-X4", 0xD83: "Neoverse-V3AE",
    0xD84: "Neoverse-V3", 0xD85: "Cortex-X925", 0xD87: "Cortex-A725", 0xD88: "Cortex-A520AE",
    0xD89: "Cortex-A720AE", 0xD8E: "Neoverse-N3", 0xD8F: "Cortex-A320",
}
_NVIDIA: Mapping[int, str] = {0x000: "Denver", 0x003: "Denver 2", 0x004: "Carmel"}
_HISILICON: Mapping[int, str] = {0xD01: "TaiShan v110", 0xD40: "Cortex-A76"}
_IMPLEMENTERS: Mapping[int, Mapping[int, str]] = {0x41: _ARM, 0x4E: _NVIDIA, 0x48: _HISILICON}
# The slower kind of a processor that has two.
LITTLE = frozenset({"Cortex-A32", "Cortex-A34", "Cortex-A35", "Cortex-A53", "Cortex-A55", "Cortex-A510",
                    "Cortex-A520", "Cortex-A520AE", "Cortex-A320"})
# fmt: on


def core_name(implementer: str, part: str) -> str:
    """The core's name, such as ``Cortex-A72`` for ``0x41`` and ``0xd08``; the numbers where it has none here."""
    try:
        found = _IMPLEMENTERS.get(int(implementer, 16), {}).get(int(part, 16))
    except ValueError:
        found = None
    return found or f"Arm core {implementer}/{part}"
