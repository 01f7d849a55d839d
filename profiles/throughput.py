"""Items a second with larger batches and with several callers, all settings interleaved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from edgekd.errors import UserInputError, fault
from edgekd.profiles.inputs import Shape
from edgekd.profiles.measurement import Measurement, measure
from edgekd.profiles.report import LatencyReport


@dataclass(frozen=True)
class Load:
    """One file under one load: each of ``streams`` callers gives it ``batch`` items at a time."""

    model: str
    path: Path
    batch: int
    streams: int


def at_each_load(
    models: Mapping[str, Path], batches: Sequence[int], streams: Sequence[int]
) -> dict[str, Load]:
    """Each file at every pair of a batch and a number of callers; the label says what is not the same for all.

    >>> list(at_each_load({"a.onnx": Path("a.onnx")}, (1, 8), (2,)))
    ['a.onnx, batch 1', 'a.onnx, batch 8']

    Raises:
        UserInputError: no size or no number of callers.
    """
    batches, streams = list(dict.fromkeys(batches)), list(dict.fromkeys(streams))
    if not batches or not streams:
        raise UserInputError(fault("throughput", "needs at least one batch size and one number of streams"))
    found = {}
    for model, path in models.items():
        for batch, count in product(batches, streams):
            parts = [
                model,
                *[f"batch {batch}"] * (len(batches) > 1),
                *[f"streams {count}"] * (len(streams) > 1),
            ]
            found[", ".join(parts)] = Load(model, Path(path), batch, count)
    return found


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
    loads = at_each_load({Path(model).name: Path(model)}, batches, streams)
    found = measure(
        {label: load.path for label, load in loads.items()},
        batch={label: load.batch for label, load in loads.items()},
        streams={label: load.streams for label, load in loads.items()},
        threads=threads, seconds=seconds, target=target, shape=shape, device=device, runtime=runtime,
        provider=provider, **options,
    )  # fmt: skip
    return Throughput(found)
