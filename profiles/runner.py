"""What can run a model round by round: the contract between measuring and a runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol


@dataclass(frozen=True)
class RunSettings:
    """How one model is run.

    Attributes:
        shape: as in :func:`edgekd.profiles.inputs.random_inputs`.
        runs: of each round, and of each stream.
        runtime: a name of :data:`edgekd.profiles.runtimes.RUNTIMES`.
        provider: of the runtime, such as ``cuda`` of ONNX Runtime.
        streams: callers at the same time; 1 is one inference after another.
        until_stable: warm up until the model no longer gets faster, ``warmup`` inferences at least.
    """

    threads: int = 1
    batch: int = 1
    shape: tuple[int, ...] | Mapping[str, tuple[int, ...]] | None = None
    runs: int = 60
    warmup: int = 10
    max_seconds_per_round: float = 10.0
    seed: int = 0
    runtime: str = "onnxruntime"
    provider: str = "cpu"
    streams: int = 1
    until_stable: bool = False


@dataclass(frozen=True)
class Opened:
    """What is known once the model is loaded and has run once.

    Attributes:
        inputs: shapes by name.
        provider: where the runtime really computes.
        precision: where the file does not tell and the runtime does.
        notes: what the runtime did with the file that a reader must know, one line each.
    """

    runtime: str
    runtime_version: str
    load_ms: float
    first_inference_ms: float
    base_memory_bytes: int
    inputs: dict[str, list[int]] = field(default_factory=dict)
    provider: str = "cpu"
    precision: str | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Finished:
    """What is known after the last round.

    Attributes:
        cpu_seconds: processor time since the model was opened.
        wait_seconds: time since then in which the model could have run but another had its core; None where
            the system does not tell.
    """

    peak_memory_bytes: int
    cpu_seconds: float
    wait_seconds: float | None = None


class Runner(Protocol):
    """One model, held open and idle between its rounds."""

    def open(self) -> Opened: ...

    def round(self) -> list[float]:
        """Warm up and time the runs of one round; milliseconds of each."""
        ...

    def finish(self) -> Finished: ...

    def close(self) -> None:
        """Release everything; also after a failure, also twice."""
        ...


if TYPE_CHECKING:
    RunnerFactory = Callable[[Path, RunSettings], Runner]
else:
    RunnerFactory = object  # Python 3.8 on a board cannot evaluate it


class FakeClock:
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class MockRunner:
    """A model whose latencies are given, on a fake clock: what runs when, and what follows, without waiting.

    Args:
        latency_ms: of inference number ``i``, counted from 0 and over warm-ups too.
        events: every call is appended as ``(name, call)``; shared between runners it shows their order.
        wait_seconds: what it says that it waited for others.
    """

    def __init__(
        self,
        name: str,
        settings: RunSettings,
        latency_ms: Callable[[int], float],
        clock: FakeClock,
        events: list[tuple[str, str]],
        wait_seconds: float | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self.latency_ms = latency_ms
        self.clock = clock
        self.events = events
        self.wait_seconds = wait_seconds
        self.count = 0
        self.busy_seconds = 0.0

    def open(self) -> Opened:
        self.events.append((self.name, "open"))
        first = self.latency_ms(0)
        self._infer()
        return Opened("mock", "1.0", load_ms=1.0, first_inference_ms=first, base_memory_bytes=1000)

    def round(self) -> list[float]:
        from edgekd.profiles.timing import timed_round

        self.events.append((self.name, "round"))
        return timed_round(
            self._infer,
            warmup=self.settings.warmup,
            runs=self.settings.runs,
            max_seconds=self.settings.max_seconds_per_round,
            until_stable=self.settings.until_stable,
            clock=self.clock,
        )

    def finish(self) -> Finished:
        self.events.append((self.name, "finish"))
        return Finished(peak_memory_bytes=2000, cpu_seconds=self.busy_seconds, wait_seconds=self.wait_seconds)

    def close(self) -> None:
        self.events.append((self.name, "close"))

    def _infer(self) -> Any:
        seconds = self.latency_ms(self.count) / 1e3
        self.clock.advance(seconds)
        self.busy_seconds += seconds
        self.count += 1
