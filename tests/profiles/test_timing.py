"""The timed loops: warm-up until stable on a fake clock, and callers that really run at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from edgekd.profiles.runner import FakeClock
from edgekd.profiles.timing import timed_round, timed_streams, warm_up_until_stable


def model(clock: FakeClock, latency_ms: Callable[[int], float]) -> Callable[[], object]:
    count = iter(range(10**9))
    return lambda: clock.advance(latency_ms(next(count)) / 1e3)


def warm_up(latency_ms: Callable[[int], float], **options: float) -> int:
    clock = FakeClock()
    settings = {"max_seconds": 100.0, **options}
    return warm_up_until_stable(model(clock, latency_ms), clock=clock, **settings)  # type: ignore[arg-type]


def test_a_steady_model_is_warm_after_three_windows() -> None:
    # Three windows: one to compare with, two that are no faster. At 50 ms a run a window is three runs.
    assert warm_up(lambda i: 50.0) == 9
    # At 1 ms a window lasts 20 ms.
    assert warm_up(lambda i: 1.0) == pytest.approx(60, abs=3)


def test_a_model_that_gets_faster_is_waited_for() -> None:
    # 60 slow inferences fill 20 windows; then one window at the new speed, and two that are no faster.
    assert warm_up(lambda i: 150.0 - 2 * i if i < 60 else 30.0) == 60 + 9


def test_one_quick_window_is_not_the_end_of_the_warm_up() -> None:
    # Windows of 3 take 50, 50, then keep falling: a pause of one window does not count as stable.
    steps = [50.0, 50.0, 40.0, 40.0, 30.0, 30.0, 30.0]
    assert warm_up(lambda i: steps[min(i // 3, 6)]) == 21


def test_a_model_that_gets_slower_is_not_waited_for() -> None:
    assert warm_up(lambda i: 50.0 + i) == 9


def test_a_warm_up_ends_with_its_time() -> None:
    # It gets faster for ever: 0.95 to the power of i.
    assert warm_up(lambda i: 500.0 * 0.97**i, max_seconds=1.0) == 3
    assert warm_up(lambda i: 5000.0, max_seconds=1.0) == 1
    assert warm_up(lambda i: 50.0, least=30) == 30


def test_a_round_until_stable_counts_nothing_of_the_warm_up() -> None:
    clock = FakeClock()
    infer = model(clock, lambda i: 30.0 if i < 6 else 10.0)
    samples = timed_round(infer, warmup=0, runs=10**9, max_seconds=4.0, until_stable=True, clock=clock)
    assert samples == pytest.approx([10.0] * len(samples))
    assert 4.0 <= clock.now < 4.02


def test_streams_run_at_the_same_time() -> None:
    together = threading.Barrier(3)

    def infer() -> None:
        if threading.current_thread() is not threading.main_thread():
            together.wait(timeout=20)  # opens only when three are inside at once

    samples = timed_streams([infer] * 3, warmup=2, runs=5, max_seconds=60)
    assert 3 <= len(samples) <= 15
    assert all(sample > 0 for sample in samples)


def test_what_ends_after_the_first_stream_does_not_count() -> None:
    gate, hangs = threading.Event(), threading.Event()
    calls: list[str] = []

    def slow() -> None:
        if threading.current_thread() is not threading.main_thread():
            calls.append("slow")
            if len([call for call in calls if call == "slow"]) == 3:
                hangs.set()
                gate.wait(timeout=20)

    def quick() -> None:
        calls.append("quick")
        if len([call for call in calls if call == "quick"]) == 5:
            hangs.wait(timeout=20)
            threading.Timer(0.2, gate.set).start()

    # quick makes its warm-up and 4 runs; slow hangs in its second run until quick has long finished.
    samples = timed_streams([slow, quick], warmup=0, runs=4, max_seconds=60)
    assert len(samples) == 5


def test_a_stream_that_fails_ends_them_all() -> None:
    def broken() -> None:
        raise RuntimeError("out of order")

    with pytest.raises(RuntimeError, match="out of order"):
        timed_streams([lambda: None, broken], warmup=0, runs=5, max_seconds=60)
