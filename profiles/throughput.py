"""Items a second of one file with larger batches and with several callers, all settings interleaved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from edgekd.errors import UserInputError, fault
from edgekd.profiles.inputs import Shape
from edgekd.profiles.measurement import Measurement, measure
from edgekd.profiles.report import LatencyReport


@dataclass(frozen=True)
class Throughput:
    """All settings of one file, in the order asked for."""

    measurement: Measurement

    @property
    def reports(self) -> list[LatencyReport]:
        return list(self.measurement.reports.values())

    @property
    def best(self) -> LatencyReport:
        """The setting with the most items a second."""
        return max(self.reports, key=lambda report: report.items_per_second)

    def to_json(self) -> list[dict[str, Any]]:
        return [report.to_json() for report in self.reports]


def measure_throughput(
    model: Path,
    *,
    batches: Sequence[int] = (1, 4, 16),
    streams: Sequence[int] = (1, 2),
    threads: int = 1,
    seconds: float = 5.0,
    target: float | None = None,
    shape: Shape = None,
    device: str = "cpu",
    runtime: str | None = None,
    provider: str = "cpu",
    **options: Any,
) -> Throughput:
    """Measure every pair of a batch and a number of callers.

    Each setting has a process of its own, and they take turns as files do in
    :func:`edgekd.profiles.measurement.measure`; their latencies are those under that load.

    Args:
        batches: sizes; a file whose batch is fixed takes that size alone.
        streams: callers at the same time; threads times streams above the cores is warned of.
        seconds, target: of each setting.
        options: the rest of ``measure``'s, such as ``progress``.

    Raises:
        UserInputError: no size or no number of callers.
        ModelFileError: the file does not take a batch of that size.
    """
    if not batches or not streams:
        raise UserInputError(fault("throughput", "needs at least one batch size and one number of streams"))
    pairs = {f"batch {batch}, streams {count}": (batch, count) for batch, count in product(batches, streams)}
    found = measure(
        dict.fromkeys(pairs, Path(model)),
        batch={label: batch for label, (batch, _) in pairs.items()},
        streams={label: count for label, (_, count) in pairs.items()},
        threads=threads, seconds=seconds, target=target, shape=shape, device=device, runtime=runtime,
        provider=provider, **options,
    )  # fmt: skip
    return Throughput(found)
