"""How long each way to write a network takes: measured on this machine, or estimated for a board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from edgekd.data.source import Progress
from edgekd.device import DeviceSpec
from edgekd.errors import EdgeKDError
from edgekd.profiles import Measurement, OperatorCost, Ratio, measure, profile_operators
from edgekd.profiles.estimation.api import estimate
from edgekd.recipe import ProfileRecipe

# Turns are so many times as many and as short as a report's: two files are compared turn by turn, and the
# interval of fifteen ratios is much narrower than that of five.
_TURNS = 3
# By how much an estimate must tell two files of one network apart before the larger one is shipped: it is off by
# 9.6 % in the median of 382 published pairs of int8 and fp32, and names the faster one in 94 %
# (benchmarks/latency/pairs.py).
_TOLD_APART = 1.1


class Ratios(Protocol):
    def ratio(self, slower: str, faster: str) -> Ratio:
        """How many times longer ``slower`` takes."""
        ...


@dataclass(frozen=True)
class Times:
    """Milliseconds by file, and what compares them."""

    kind: Literal["measured", "estimated"]
    p50_ms: Mapping[str, float]
    ratios: Ratios

    def ratio(self, slower: str, faster: str) -> Ratio:
        return self.ratios.ratio(slower, faster)

    @classmethod
    def measured(cls, found: Measurement) -> Times:
        return cls("measured", {name: report.p50_ms for name, report in found.reports.items()}, found)


class Clock(Protocol):
    """Where a file runs."""

    def operators(self, file: Path) -> Sequence[OperatorCost]: ...

    def times(self, files: Mapping[str, Path]) -> Times: ...


@dataclass(frozen=True)
class Here:
    """This machine."""

    settings: ProfileRecipe
    progress: Progress | None = None

    def operators(self, file: Path) -> Sequence[OperatorCost]:
        """The quieter of two profiles for each operator: what disturbs one makes a layer look slow."""
        threads = self.settings.threads[0]
        first, second = (profile_operators(file, threads=threads) for _ in range(2))
        other = {(cost.op_type, cost.node): cost.mean_us for cost in second}
        return [
            replace(cost, mean_us=min(cost.mean_us, other.get((cost.op_type, cost.node), cost.mean_us)))
            for cost in first
        ]

    def times(self, files: Mapping[str, Path]) -> Times:
        """Interleaved, in processes of their own."""
        settings, progress = self.settings, self.progress
        return Times.measured(measure(
            files, threads=settings.threads[0], rounds=_TURNS * settings.rounds,
            runs=-(-settings.runs // _TURNS), warmup=settings.warmup,
            progress=None if progress is None else lambda done, total, label: progress("choose a file", done, total),
        ))  # fmt: skip


@dataclass(frozen=True)
class OnBoard:
    """A board that is not at hand; ``threads`` as for :func:`edgekd.profiles.estimate`."""

    spec: DeviceSpec
    threads: int | None = None

    def operators(self, file: Path) -> Sequence[OperatorCost]:
        found = estimate(file, self.spec, threads=self.threads)
        return [
            OperatorCost(each.op, each.node, 1000 * each.milliseconds, each.milliseconds / found.p50_ms, position)
            for position, each in enumerate(found.operators)
        ]  # fmt: skip

    def times(self, files: Mapping[str, Path]) -> Times:
        found = {name: estimate(file, self.spec, threads=self.threads).p50_ms for name, file in files.items()}
        return Times("estimated", found, _Estimated(found))


@dataclass(frozen=True)
class _Estimated:
    p50_ms: Mapping[str, float]

    def ratio(self, slower: str, faster: str) -> Ratio:
        value = self.p50_ms[slower] / self.p50_ms[faster]
        return Ratio(value, value / _TOLD_APART, value * _TOLD_APART, confidence=0.0, rounds=0)


def clock_for(
    spec: DeviceSpec, settings: ProfileRecipe, file: Path, progress: Progress | None
) -> Clock | None:
    """This machine for ``cpu``, an estimate for another processor.

    None where an estimate decides nothing: for a GPU, since what its builder makes of a float file (fp16, fusions)
    is not in the file, and for a ``file`` that cannot be priced.
    """
    if spec.name == "cpu":
        return Here(settings, progress)
    if spec.runtime != "onnxruntime":
        return None
    board = OnBoard(spec, settings.threads[0] if "threads" in settings.model_fields_set else None)
    try:
        board.operators(file)
    except EdgeKDError:
        return None
    return board
