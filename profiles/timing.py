"""The timed loops. They take their clock as an argument, so that tests run them without waiting.

Standard library only, and no syntax newer than Python 3.8: a board's agent can carry this file.
"""

from __future__ import annotations

import gc
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Clock = Callable[[], float]

WARMUP_SHARE = 0.25  # of a round's seconds, at most
_MIN_RUNS = 2
# Of a warm-up until stable. A window is never shorter than a governor needs to raise the clock (10 ms).
WINDOW_RUNS = 3
WINDOW_SECONDS = 0.02
STEADY_WINDOWS = 2
GAIN = 0.02


def timed_round(
    infer: Callable[[], object],
    *,
    warmup: int,
    runs: int,
    max_seconds: float,
    until_stable: bool = False,
    clock: Clock = time.perf_counter,
) -> list[float]:
    """Warm up, then time single inferences.

    Both loops end early when the round has used its seconds: a quarter of them for the warm-up. At least one
    warm-up (if any are asked for) and two timed runs (if two are asked for) happen however slow the model is.

    Args:
        warmup: inferences that do not count; with ``until_stable`` the least number of them.
        max_seconds: time budget of warm-up and runs together.
        until_stable: warm up as :func:`warm_up_until_stable` does.
        clock: seconds, monotonic.

    Returns:
        Milliseconds of each timed run, in order.
    """
    start = clock()
    _warm_up(infer, warmup, WARMUP_SHARE * max_seconds, until_stable, clock)
    samples: list[float] = []
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        for done in range(runs):
            before = clock()
            if done >= _MIN_RUNS and before - start >= max_seconds:
                break
            infer()
            samples.append((clock() - before) * 1e3)
    finally:
        if was_collecting:
            gc.enable()
    return samples


def warm_up_until_stable(
    infer: Callable[[], object], *, least: int = 0, max_seconds: float, clock: Clock = time.perf_counter
) -> int:
    """Run until the model no longer gets faster; returns the inferences that it took.

    Inferences are taken in windows of at least 3 runs and 20 ms. The model is warm when two windows in a row
    have medians that are not 2 % below the best median before them. Google Benchmark
    (``--benchmark_min_warmup_time``) and hyperfine (``--warmup``) leave the length to the person, who cannot
    know it. Only what gets faster is waited for: what gets slower is heat or company, and belongs in the
    samples and their warnings.

    Args:
        least: inferences to make in any case, within the time.
        max_seconds: no new inference starts later than this, stable or not; one is always made.
    """
    start = clock()
    best, steady, count = float("inf"), 0, 0
    while count < least or steady < STEADY_WINDOWS:
        window: list[float] = []
        begin = clock()
        while len(window) < WINDOW_RUNS or clock() - begin < WINDOW_SECONDS:
            before = clock()
            if count and before - start >= max_seconds:
                return count
            infer()
            count += 1
            window.append(clock() - before)
        middle = sorted(window)[len(window) // 2]
        steady = 0 if middle < (1 - GAIN) * best else steady + 1
        best = min(best, middle)
    return count


def timed_streams(
    callers: Sequence[Callable[[], object]],
    *,
    warmup: int,
    runs: int,
    max_seconds: float,
    until_stable: bool = False,
    clock: Clock = time.perf_counter,
) -> list[float]:
    """Several callers at once; each asks again as soon as it has its answer.

    All start together, and what ends after the first of them has finished is not counted: at every moment
    that counts, as many inferences are in flight as there are callers. So their rate follows from the mean
    (Little's law: callers over mean latency).

    Args:
        callers: one inference each; they must bear being called at the same time.
        runs: of each caller. The rest is as in :func:`timed_round`.

    Returns:
        Milliseconds of the inferences that count, in the order in which they ended.
    """
    start = clock()
    _warm_up(callers[0], warmup, WARMUP_SHARE * max_seconds, until_stable, clock)
    ready = threading.Barrier(len(callers))
    finished: list[tuple[float, float]] = []
    ends: list[float] = []
    failures: list[BaseException] = []

    def call(infer: Callable[[], object]) -> None:
        try:
            infer()  # warms what is this caller's own
            ready.wait()
            for done in range(runs):
                before = clock()
                if ends or failures or (done >= _MIN_RUNS and before - start >= max_seconds):
                    break
                infer()
                end = clock()
                finished.append((end, (end - before) * 1e3))
            ends.append(clock())
        except BaseException as error:
            failures.append(error)
            ready.abort()

    threads = [threading.Thread(target=call, args=(infer,), daemon=True) for infer in callers]
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        if was_collecting:
            gc.enable()
    if failures:
        raise next((e for e in failures if not isinstance(e, threading.BrokenBarrierError)), failures[0])
    last = min(ends)
    return [milliseconds for end, milliseconds in sorted(finished) if end <= last]


def _warm_up(
    infer: Callable[[], object], warmup: int, max_seconds: float, until_stable: bool, clock: Clock
) -> None:
    if until_stable:
        warm_up_until_stable(infer, least=warmup, max_seconds=max_seconds, clock=clock)
        return
    start = clock()
    for done in range(warmup):
        if done and clock() - start >= max_seconds:
            break
        infer()
