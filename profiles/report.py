"""What a measurement says. A number that was not measured has another type: see ``kind``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgekd.profiles.cautions import Caution, CautionKind
from edgekd.profiles.statistics import (
    drift,
    median_interval,
    outliers,
    relative_spread,
    summarise,
    two_levels,
)

if TYPE_CHECKING:
    from edgekd.profiles.ssh.health import BoardHealth

MIN_SAMPLES = 30  # below, p99 and often p90 are the largest sample
_OUTLIER_SHARE = 0.05
_DRIFT = 0.05
_SPREAD = 0.10


@dataclass(frozen=True)
class LatencyReport:
    """Measured latency of one ONNX file. Times in milliseconds, memory in bytes.

    Attributes:
        kind: always ``measured``; estimates and emulation have their own types.
        low_ms, high_ms: smallest and largest median of a round.
        peak_memory_bytes: peak resident memory of the process that ran the file alone, Python included.
        base_memory_bytes: what that process held before it opened the file.
        inputs: shape of each input that was fed, by name.
        provider: where the runtime computed, such as ``cuda`` of ONNX Runtime.
        streams: callers at the same time.
        notes: what the runtime did with the file, such as how many sparse layers it runs as such.
        clocks_mhz, temperatures_c: before, and after each turn of any model; empty where nothing tells.
        host: the board that ssh reached; None is this machine.
        health: of that board: throttling, power mode, millijoules an inference.
        first_inference_ms: the first inference after loading, with cold caches and no warm-up.
        rounds_ms: the raw samples, in the order in which they were taken.
    """

    device: str
    runtime: str
    runtime_version: str
    threads: int
    batch: int
    precision: str
    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    samples: int
    low_ms: float
    high_ms: float
    peak_memory_bytes: int
    base_memory_bytes: int
    model_sha256: str
    load_ms: float
    first_inference_ms: float
    outlier_share: float
    rounds_ms: tuple[tuple[float, ...], ...]
    warnings: tuple[Caution, ...] = ()
    validated: bool = True
    inputs: Mapping[str, Sequence[int]] = field(default_factory=dict)
    provider: str = "cpu"
    streams: int = 1
    clocks_mhz: tuple[float, ...] = ()
    temperatures_c: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    host: str | None = None
    health: BoardHealth | None = None
    kind: Literal["measured"] = field(default="measured", init=False)

    @property
    def round_medians_ms(self) -> tuple[float, ...]:
        return tuple(float(np.median(samples)) for samples in self.rounds_ms)

    @property
    def p50_interval_ms(self) -> tuple[float, float]:
        """Of the rounds' medians, with 95 % from six rounds on; of fewer, their range."""
        low, high, _ = median_interval(self.round_medians_ms)
        return low, high

    @property
    def items_per_second(self) -> float:
        """Throughput: each stream starts its next batch when it has the last one (Little's law)."""
        return self.streams * self.batch * 1e3 / self.mean_ms

    def to_json(self, *, raw: bool = False) -> dict[str, Any]:
        """A latency entry of ``report.json``; with ``raw`` every sample too."""
        entry: dict[str, Any] = {
            "kind": self.kind,
            "device": self.device,
            "runtime": self.runtime,
            "runtime_version": self.runtime_version,
            "threads": self.threads,
            "batch": self.batch,
            "precision": self.precision,
            "p50_ms": self.p50_ms,
            "p90_ms": self.p90_ms,
            "p99_ms": self.p99_ms,
            "mean_ms": self.mean_ms,
            "samples": self.samples,
            "low_ms": self.low_ms,
            "high_ms": self.high_ms,
            "validated": self.validated,
            "peak_memory_bytes": self.peak_memory_bytes,
            "model_sha256": self.model_sha256,
            "warnings": [str(caution) for caution in self.warnings],
            "warning_kinds": [caution.kind.value for caution in self.warnings],
            "base_memory_bytes": self.base_memory_bytes,
            "load_ms": self.load_ms,
            "first_inference_ms": self.first_inference_ms,
            "round_medians_ms": list(self.round_medians_ms),
            "outlier_share": self.outlier_share,
            "inputs": {name: list(shape) for name, shape in self.inputs.items()},
            "provider": self.provider,
            "streams": self.streams,
            "items_per_second": self.items_per_second,
            "p50_interval_ms": list(self.p50_interval_ms),
            "notes": list(self.notes),
            "clocks_mhz": list(self.clocks_mhz),
            "temperatures_c": list(self.temperatures_c),
            "host": self.host,
            "health": self.health.to_json() if self.health else None,
        }
        if raw:
            entry["rounds_ms"] = [list(samples) for samples in self.rounds_ms]
        return entry


def sample_facts(rounds_ms: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The fields of a report that follow from the samples of each round alone."""
    rounds = tuple(tuple(float(value) for value in samples) for samples in rounds_ms)
    everything = [value for samples in rounds for value in samples]
    summary = summarise(everything)
    medians = [float(np.median(samples)) for samples in rounds]
    return {
        "p50_ms": summary.p50,
        "p90_ms": summary.p90,
        "p99_ms": summary.p99,
        "mean_ms": summary.mean,
        "samples": summary.count,
        "low_ms": min(medians),
        "high_ms": max(medians),
        "outlier_share": float(outliers(everything).mean()),
        "rounds_ms": rounds,
    }


def sample_cautions(rounds_ms: Sequence[Sequence[float]]) -> list[Caution]:
    """What the samples themselves say against the number."""
    everything = np.concatenate([np.asarray(samples, np.float64) for samples in rounds_ms])
    medians = [float(np.median(samples)) for samples in rounds_ms]
    found = []
    if len(everything) < MIN_SAMPLES:
        text = f"only {len(everything)} samples: p99 is the largest of them; allow more seconds or runs"
        found.append(Caution(CautionKind.FEW_SAMPLES, text))
    share = float(outliers(everything).mean())
    if share > _OUTLIER_SHARE:
        text = f"{share:.0%} of the samples are outliers: read the median, not the mean"
        found.append(Caution(CautionKind.OUTLIERS, text))
    change = drift(medians)
    spread = relative_spread(medians)
    if abs(change) > _DRIFT:
        direction = "slower" if change > 0 else "faster"
        text = (
            f"the rounds became {abs(change):.0%} {direction} from first to last: heat, clock or load moved"
        )
        found.append(Caution(CautionKind.DRIFT, text))
    elif spread > _SPREAD:
        text = (
            f"the rounds' medians differ by {spread:.0%}: read ratios of interleaved models, not milliseconds"
        )
        found.append(Caution(CautionKind.SPREAD, text))
    if levels := two_levels(everything):
        low, high = levels
        text = f"the samples jump between {low:.3g} and {high:.3g} ms: a clock step or shared cores"
        found.append(Caution(CautionKind.TWO_LEVELS, text))
    return found
