"""What an estimate rests on and what a reader must know of it, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekd.profiles.estimation.choices import halves_by_itself
from edgekd.profiles.estimation.hardware import Hardware
from edgekd.profiles.estimation.parameters import Fitted
from edgekd.profiles.estimation.ranges import Range
from edgekd.profiles.estimation.runtimes import RuntimeKind

if TYPE_CHECKING:
    from edgekd.device_parts import PowerMode
    from edgekd.device_spec import DeviceSpec


def basis_of(fit: Fitted, engine: RuntimeKind, rows: int, *, known: bool) -> str:
    """One line: how many published rows stand behind an estimate, and how near they are."""
    board = "some of this board" if known else "none of this board"
    return (
        f"operators and hardware priced by a fit on {fit.provenance.get('rows', 0)} published latencies,"
        f" {board}; {rows} with {engine.name}, such cores, such a network and this precision"
    )


def notes_of(
    spec: DeviceSpec,
    hardware: Hardware,
    engine: RuntimeKind,
    mode: PowerMode | None,
    precision: str,
    kind: str,
    found: Range,
    *,
    asked: str | None,
) -> list[str]:
    """One line each. ``asked``: the precision that the caller named."""
    notes = []
    if hardware.assumed:
        notes.append("not in the facts, assumed: " + "; ".join(hardware.assumed))
    if mode is None and spec.power_modes:
        modes = ", ".join(each.name for each in spec.power_modes)
        notes.append(f"no power mode named: at the highest clocks (allowed: {modes})")
    first = hardware.clusters[0].kind
    if precision == "fp16" and not engine.gpu and not (engine.fp16 and first.flop16):
        notes.append(f"fp16 is storage only on {first.name} under {engine.name}: arithmetic in fp32")
    if asked is None and precision == "fp16" and halves_by_itself(hardware, engine):
        notes.append(
            f"{engine.name} computes in fp16 on {first.name} by itself; name a precision for another"
        )
    if found.smallest:
        notes.append(
            f"not validated: the smallest network published with {engine.name} has"
            f" {found.smallest / 1e6:.0f} million multiply-accumulates, more than twice this one's"
        )
    if not found.near:
        what = f"too few published rows of {engine.name} in {precision} on such a core"
        notes.append(f"not validated: {what} for a {kind} network")
    return notes
