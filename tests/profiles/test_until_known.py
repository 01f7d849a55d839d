"""Measuring until the median is known, on mock runners and a fake clock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import UserInputError
from edgekd.profiles import CautionKind, Measurement, measure, measure_throughput
from edgekd.profiles.machine import MachineState
from edgekd.profiles.plan import MIN_ROUNDS, MIN_SAMPLES, UntilKnown, half_width
from edgekd.profiles.runner import FakeClock, MockRunner, RunSettings

QUIET = MachineState(frozenset(), 0.0, 0, 0, False)


@pytest.fixture
def run(make_onnx: Callable[..., Path]) -> Callable[..., tuple[Measurement, FakeClock, str]]:
    """``run({"a": latency}, seconds=...)``: the measurement, its clock, and who had the turns."""

    def measured(
        latencies: dict[str, Callable[[int], float]], **options: object
    ) -> tuple[Measurement, FakeClock, str]:
        clock = FakeClock()
        events: list[tuple[str, str]] = []

        def factory(path: Path, settings: RunSettings) -> MockRunner:
            return MockRunner(path.stem, settings, latencies[path.stem], clock, events)

        models = {name: make_onnx(f"{name}.onnx") for name in latencies}
        found = measure(models, runner_factory=factory, clock=clock, read_state=lambda: QUIET, **options)  # type: ignore[arg-type]
        return found, clock, "".join(name for name, call in events if call == "round")

    return measured


def kinds(measurement: Measurement, label: str = "a") -> set[CautionKind]:
    return {caution.kind for caution in measurement.reports[label].warnings}


def test_a_quiet_model_ends_after_the_least_rounds(
    run: Callable[..., tuple[Measurement, FakeClock, str]],
) -> None:
    found, clock, turns = run({"a": lambda i: 1.0 + 0.01 * (i % 7)}, seconds=10)
    assert turns == "a" * MIN_ROUNDS
    # A twentieth of the time a round.
    assert clock.now == pytest.approx(MIN_ROUNDS * 0.5, rel=0.02)
    assert found.reports["a"].samples > MIN_SAMPLES
    assert kinds(found) == set()


def test_two_models_stay_interleaved_until_both_are_known(
    run: Callable[..., tuple[Measurement, FakeClock, str]],
) -> None:
    generator = np.random.default_rng(0)
    wild = iter(generator.uniform(9.0, 11.0, 1000).repeat(60))
    found, clock, turns = run({"a": lambda i: 1.0, "b": lambda i: float(next(wild))}, seconds=6, target=0.05)
    assert len(turns) > 2 * MIN_ROUNDS
    assert turns == "".join("ab" if turn % 2 == 0 else "ba" for turn in range(len(turns) // 2))
    assert found.ratio("b", "a").rounds == len(turns) // 2
    assert half_width(found.reports["b"].rounds_ms) <= 0.05
    assert CautionKind.TARGET_MISSED not in kinds(found, "b")
    # The round before, it was not known yet: nothing is measured beyond need.
    earlier = found.reports["b"].rounds_ms[:-1]
    assert len(earlier) < MIN_ROUNDS or half_width(earlier) > 0.05
    assert clock.now < 12


def test_the_time_ends_what_is_never_known_and_says_so(
    run: Callable[..., tuple[Measurement, FakeClock, str]],
) -> None:
    found, clock, turns = run({"a": lambda i: 10.0 * (1 + i // 50 % 2)}, seconds=4, target=0.001)
    assert clock.now == pytest.approx(4.0, rel=0.1)
    assert len(turns) == pytest.approx(20, abs=2)
    (text,) = [str(c) for c in found.reports["a"].warnings if c.kind is CautionKind.TARGET_MISSED]
    assert "(asked for 0.1%) after 4 s: allow more seconds" in text


def test_a_model_slower_than_the_time_still_has_its_turn(
    run: Callable[..., tuple[Measurement, FakeClock, str]],
) -> None:
    found, _, turns = run({"a": lambda i: 5000.0, "b": lambda i: 1.0}, seconds=1)
    assert turns == "ab"
    assert found.reports["a"].samples == 2
    assert CautionKind.TARGET_MISSED in kinds(found, "a")
    assert "from 1 round alone" in " ".join(map(str, found.reports["a"].warnings))


def test_few_samples_are_not_enough_however_equal_they_are() -> None:
    plan = UntilKnown(seconds=100, target=0.02, models=1)
    rounds = [[10.0, 10.0]] * MIN_ROUNDS
    assert plan.goes_on({"a": rounds}, 12.0)
    assert not plan.goes_on({"a": [[10.0] * MIN_SAMPLES] * MIN_ROUNDS}, 12.0)
    assert plan.goes_on({"a": [[10.0] * MIN_SAMPLES] * (MIN_ROUNDS - 1)}, 12.0)
    assert not plan.goes_on({"a": rounds}, 100.0)


def test_progress_is_of_the_time(run: Callable[..., tuple[Measurement, FakeClock, str]]) -> None:
    seen: list[tuple[int, int, str]] = []
    run({"a": lambda i: 1.0}, seconds=10, progress=lambda *step: seen.append(step))
    assert [step[2] for step in seen] == ["a"] * MIN_ROUNDS + [""]
    assert seen[1][0] == pytest.approx(50, abs=2)
    assert seen[-1][:2] == (1000, 1000)


def test_the_interval_of_the_report_is_the_one_that_ended_it(
    run: Callable[..., tuple[Measurement, FakeClock, str]],
) -> None:
    report = run({"a": lambda i: 1.0 + 0.01 * (i % 7)}, target=0.02)[0].reports["a"]
    low, high = report.p50_interval_ms
    assert low <= report.p50_ms <= high
    assert report.to_json()["p50_interval_ms"] == [low, high]


def test_throughput_of_batches_and_streams(run: Callable[..., tuple[Measurement, FakeClock, str]]) -> None:
    report = run({"a": lambda i: 10.0}, rounds=1, runs=5, batch=8, streams=1)[0].reports["a"]
    assert report.items_per_second == pytest.approx(800)
    report = run({"a": lambda i: 10.0}, rounds=1, runs=5, streams=3)[0].reports["a"]
    assert (report.streams, report.to_json()["items_per_second"]) == (3, pytest.approx(300))


def test_batches_and_streams_of_one_file_take_turns(make_onnx: Callable[..., Path]) -> None:
    clock, events = FakeClock(), list[tuple[str, str]]()

    def factory(path: Path, settings: RunSettings) -> MockRunner:
        # A batch costs less than its items one by one; two callers get in each other's way.
        milliseconds = (4 + settings.batch) * (1.6 if settings.streams == 2 else 1.0)
        name = f"{settings.batch}x{settings.streams} "
        return MockRunner(name, settings, lambda i: milliseconds, clock, events)

    found = measure_throughput(
        make_onnx(),
        batches=(1, 8),
        streams=(1, 2),
        runner_factory=factory,
        clock=clock,
        read_state=lambda: QUIET,
    )
    turns = "".join(name for name, call in events if call == "round")
    assert turns.startswith("1x1 1x2 8x1 8x2 1x2 8x1 8x2 1x1 ")
    rates = {(row["batch"], row["streams"]): row["items_per_second"] for row in found.to_json()}
    assert rates == {
        (1, 1): pytest.approx(200), (1, 2): pytest.approx(250),
        (8, 1): pytest.approx(8000 / 12), (8, 2): pytest.approx(10000 / 12),
    }  # fmt: skip
    assert (found.best.batch, found.best.streams) == (8, 2)
    with pytest.raises(UserInputError, match="throughput: needs at least one batch size"):
        measure_throughput(make_onnx(), batches=())
    with pytest.raises(UserInputError, match="measure: batch: too small; got 0"):
        measure_throughput(make_onnx(), batches=(0,))


@pytest.mark.parametrize("option", ["seconds", "target"])
def test_no_time_and_no_width(option: str) -> None:
    with pytest.raises(UserInputError, match=f"measure: {option}: must be above 0; got 0"):
        measure({"a": Path("a.onnx")}, **{option: 0})  # type: ignore[arg-type]
    with pytest.raises(UserInputError, match="must be above 0; got nan"):
        measure({"a": Path("a.onnx")}, **{option: float("nan")})  # type: ignore[arg-type]
