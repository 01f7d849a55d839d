"""A workload as a small table: what kinds of operators a network consists of, and which of them weigh."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgekd.profiles.estimation.operators import FAMILIES, Operator, Workload


@dataclass(frozen=True)
class FamilyTotal:
    """Attributes:
    bytes: read and written at least once, at the widths that the file has.
    share: of all multiply-accumulates, 0 to 1.
    """

    family: str
    operators: int
    macs: int
    bytes: int
    integer: int
    share: float


def family_totals(workload: Workload) -> tuple[FamilyTotal, ...]:
    """Families that occur, the most multiply-accumulates first, then the most bytes."""
    found = []
    for family in FAMILIES:
        members = [operator for operator in workload.operators if operator.family == family]
        if members:
            found.append(_total(family, members, workload.macs))
    return tuple(sorted(found, key=lambda total: (-total.macs, -total.bytes)))


def workload_lines(workload: Workload) -> list[str]:
    """The same as text, one line a family and one for all.

    >>> from edgekd.profiles.estimation.operators import Operator
    >>> one = Operator("fc", "Gemm", "gemm", macs=8_000_000, weight_elements=8_000_000)
    >>> for line in workload_lines(Workload((one,))):
    ...     print(line)
    family                operators  million MACs  share      MB  share
    gemm                          1           8.0  100 %   32.00  100 %
    all                           1           8.0          32.00
    """
    totals = family_totals(workload)
    moved = sum(total.bytes for total in totals)
    lines = ["family                operators  million MACs  share      MB  share"]
    for total in totals:
        count = f"{total.operators:>9}"
        macs = f"{total.macs / 1e6:>12.1f}  {total.share:>4.0%}".replace("%", " %")
        traffic = f"{total.bytes / 1e6:>6.2f}  {_part(total.bytes, moved):>4.0%}".replace("%", " %")
        lines.append(f"{total.family:<21} {count}  {macs}  {traffic}")
    lines.append(
        f"{'all':<21} {len(workload.operators):>9}  {workload.macs / 1e6:>12.1f}         {moved / 1e6:>6.2f}"
    )
    integers = sum(total.integer for total in totals)
    if integers:
        lines.append(f"{integers} of {len(workload.operators)} operators compute in integers")
    return [*lines, *workload.notes]


def _total(family: str, members: Iterable[Operator], all_macs: int) -> FamilyTotal:
    members = list(members)
    macs = sum(operator.macs for operator in members)
    return FamilyTotal(
        family=family,
        operators=len(members),
        macs=macs,
        bytes=sum(operator.bytes for operator in members),
        integer=sum(operator.integer for operator in members),
        share=_part(macs, all_macs),
    )


def _part(value: int, whole: int) -> float:
    return value / whole if whole else 0.0
