"""Order, budget, warnings and reports, on mock runners and a fake clock: nothing here waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgekd.errors import ModelFileError, UserInputError
from edgekd.profiles import CautionKind, LatencyReport, Measurement, measure
from edgekd.profiles.machine import MachineState
from edgekd.profiles.runner import FakeClock, MockRunner, Opened, RunSettings
from edgekd.profiles.timing import timed_round

QUIET = MachineState(frozenset(), 0.0, 0, 0, False)
DESIGN_KEYS = {
    "kind", "device", "runtime", "runtime_version", "threads", "batch", "precision", "p50_ms", "p90_ms",
    "p99_ms", "mean_ms", "samples", "low_ms", "high_ms", "validated", "peak_memory_bytes", "model_sha256",
    "warnings",
}  # fmt: skip


class Bench:
    """Mock runners on one clock; ``latencies`` by file stem."""

    def __init__(self, latencies: dict[str, Callable[[int], float]]) -> None:
        self.clock = FakeClock()
        self.events: list[tuple[str, str]] = []
        self.latencies = latencies

    def factory(self, path: Path, settings: RunSettings) -> MockRunner:
        return MockRunner(path.stem, settings, self.latencies[path.stem], self.clock, self.events)

    def measure(self, models: dict[str, Path], **options: object) -> Measurement:
        settings = {"read_state": lambda: QUIET, **options}
        return measure(models, runner_factory=self.factory, clock=self.clock, **settings)  # type: ignore[arg-type]


@pytest.fixture
def models(make_onnx: Callable[..., Path]) -> dict[str, Path]:
    return {name: make_onnx(f"{name}.onnx") for name in "abc"}


def constant(latency: float) -> Callable[[int], float]:
    return lambda _: latency


def test_rounds_are_interleaved_and_their_order_rotates(models: dict[str, Path]) -> None:
    bench = Bench({name: constant(1.0) for name in "abc"})
    measurement = bench.measure(models, rounds=4, runs=2, warmup=1)
    turns = "".join(name for name, call in bench.events if call == "round")
    assert turns == "abc" + "bca" + "cab" + "abc"
    assert "".join(measurement.order) == turns
    calls = [call for _, call in bench.events]
    assert calls == ["open"] * 3 + ["round"] * 12 + ["finish"] * 3 + ["close"] * 3


def test_the_report_holds_the_designs_keys_and_the_raw_samples(models: dict[str, Path]) -> None:
    bench = Bench({"a": lambda i: 1.0 + (i % 10) / 10})
    report = bench.measure(
        {"a": models["a"]}, rounds=3, runs=20, warmup=9, threads=1, device="my-board"
    ).reports["a"]
    entry = report.to_json(raw=True)
    assert set(entry) >= DESIGN_KEYS
    assert (entry["kind"], entry["device"], entry["validated"], entry["precision"]) == (
        "measured",
        "my-board",
        True,
        "fp32",
    )
    assert [len(samples) for samples in entry["rounds_ms"]] == [20, 20, 20]
    assert entry["samples"] == 60
    assert entry["p50_ms"] == pytest.approx(1.45)
    assert entry["p90_ms"] == pytest.approx(1.81)
    assert entry["mean_ms"] == pytest.approx(1.45)
    assert entry["low_ms"] <= entry["p50_ms"] <= entry["high_ms"]
    assert len(entry["model_sha256"]) == 64
    assert "rounds_ms" not in report.to_json()


def test_a_report_cannot_be_given_another_kind(models: dict[str, Path]) -> None:
    with pytest.raises(TypeError, match="kind"):
        LatencyReport(kind="estimated")  # type: ignore[call-arg]


def test_ratio_of_a_measurement(models: dict[str, Path]) -> None:
    bench = Bench({"a": constant(6.0), "b": constant(2.0)})
    measurement = bench.measure({"teacher": models["a"], "student": models["b"]}, runs=4)
    result = measurement.ratio("teacher", "student")
    assert result.value == pytest.approx(3.0)
    assert result.rounds == 5


def test_warm_up_is_not_counted(models: dict[str, Path]) -> None:
    # Inference 0 is the first one; 1 to 10 warm up round 1, then 5 runs; later rounds warm up again.
    bench = Bench({"a": lambda i: 50.0 if i <= 10 else 1.0})
    report = bench.measure({"a": models["a"]}, rounds=2, runs=5, warmup=10).reports["a"]
    assert report.first_inference_ms == 50.0
    assert report.rounds_ms == (pytest.approx([1.0] * 5), pytest.approx([1.0] * 5))


def test_a_slow_model_makes_fewer_runs_and_says_so(models: dict[str, Path]) -> None:
    bench = Bench({"a": constant(2000.0)})
    report = bench.measure({"a": models["a"]}, rounds=5, max_seconds_per_round=10).reports["a"]
    # 2.5 s of warm-up: two inferences; then runs start until 10 s are over.
    assert [len(samples) for samples in report.rounds_ms] == [3] * 5
    assert CautionKind.FEW_SAMPLES in {caution.kind for caution in report.warnings}


def test_the_slowest_model_still_gives_two_runs_a_round() -> None:
    clock = FakeClock()
    samples = timed_round(lambda: clock.advance(100.0), warmup=10, runs=60, max_seconds=10.0, clock=clock)
    assert samples == [1e5, 1e5]


def test_no_warm_up_and_one_run_are_possible() -> None:
    clock = FakeClock()
    assert timed_round(lambda: clock.advance(0.5), warmup=0, runs=1, max_seconds=0.1, clock=clock) == [500.0]
    assert clock.now == 0.5


def kinds(measurement: Measurement) -> set[CautionKind]:
    return {caution.kind for caution in measurement.reports["a"].warnings}


def test_a_quiet_measurement_has_no_warning(models: dict[str, Path]) -> None:
    bench = Bench({"a": lambda i: 1.0 + 0.01 * (i % 7)})
    assert kinds(bench.measure({"a": models["a"]}, warmup=3)) == set()


def test_drift_outliers_and_levels_are_noticed(models: dict[str, Path]) -> None:
    rising = Bench({"a": lambda i: 1.0 + 0.001 * i})
    assert CautionKind.DRIFT in kinds(rising.measure({"a": models["a"]}))
    spikes = Bench({"a": lambda i: 30.0 if i % 12 == 0 else 1.0 + 0.01 * (i % 7)})
    assert CautionKind.OUTLIERS in kinds(spikes.measure({"a": models["a"]}))
    jumping = Bench({"a": lambda i: (3.0 if i % 3 == 0 else 1.0) + 0.01 * (i % 7)})
    assert CautionKind.TWO_LEVELS in kinds(jumping.measure({"a": models["a"]}))
    uneven = Bench({"a": lambda i: 1.5 if 141 <= i <= 210 else 1.0})
    assert CautionKind.SPREAD in kinds(uneven.measure({"a": models["a"]}))


def looks(*states: MachineState) -> Callable[[], MachineState]:
    """The machine before, and after each turn; the last state stays."""
    left = list(states)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def test_swap_during_the_rounds_reaches_every_report(models: dict[str, Path]) -> None:
    bench = Bench({"a": constant(1.0), "b": constant(1.0)})
    both = {name: models[name] for name in "ab"}
    measurement = bench.measure(both, read_state=looks(QUIET, replace(QUIET, swapped_pages=7)))
    for report in measurement.reports.values():
        assert [str(c) for c in report.warnings if c.kind is CautionKind.SWAP] == [
            "7 pages were swapped during the rounds: memory is short"
        ]


@pytest.mark.parametrize(("busy", "warned"), [(3.6, False), (7.2, True)])
def test_the_models_own_processor_time_is_not_held_against_them(
    models: dict[str, Path], busy: float, warned: bool
) -> None:
    # 5 rounds of 70 inferences of 10 ms are 3.5 s of wall and processor time.
    bench = Bench({"a": constant(10.0)})
    after = replace(QUIET, busy_seconds=busy)
    found = kinds(bench.measure({"a": models["a"]}, read_state=looks(QUIET, after)))
    assert (CautionKind.CORES_SHARED in found) == warned


def test_progress_counts_every_turn(models: dict[str, Path]) -> None:
    seen: list[tuple[int, int, str]] = []
    bench = Bench({name: constant(1.0) for name in "ab"})
    bench.measure({name: models[name] for name in "ab"}, rounds=2, progress=lambda *step: seen.append(step))
    assert seen == [(0, 4, "a"), (1, 4, "b"), (2, 4, "b"), (3, 4, "a"), (4, 4, "")]


def test_every_runner_is_closed_when_one_fails_to_open(models: dict[str, Path]) -> None:
    bench = Bench({name: constant(1.0) for name in "ab"})

    class Broken(MockRunner):
        def open(self) -> Opened:
            raise ModelFileError("b.onnx: broken")

    def factory(path: Path, settings: RunSettings) -> MockRunner:
        kind = Broken if path.stem == "b" else MockRunner
        return kind(path.stem, settings, constant(1.0), bench.clock, bench.events)

    with pytest.raises(ModelFileError, match=r"b\.onnx: broken"):
        measure({name: models[name] for name in "ab"}, runner_factory=factory)
    assert bench.events == [("a", "open"), ("b", "close"), ("a", "close")]


@pytest.mark.parametrize("option", ["threads", "rounds", "runs", "batch", "warmup"])
def test_numbers_below_their_least_value(models: dict[str, Path], option: str) -> None:
    with pytest.raises(UserInputError, match=f"measure: {option}: too small; got -1"):
        measure(models, **{option: -1})  # type: ignore[arg-type]


def test_no_models_and_no_time() -> None:
    with pytest.raises(UserInputError, match="no model to measure"):
        measure({})
    with pytest.raises(UserInputError, match="max_seconds_per_round: must be above 0"):
        measure({"a": Path("a.onnx")}, max_seconds_per_round=0)
