"""The timed loop. It takes its clock as an argument, so that tests run it without waiting."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

Clock = Callable[[], float]

_WARMUP_SHARE = 0.25
_MIN_RUNS = 2


def timed_round(
    infer: Callable[[], object],
    *,
    warmup: int,
    runs: int,
    max_seconds: float,
    clock: Clock = time.perf_counter,
) -> list[float]:
    """Warm up, then time single inferences.

    Both loops end early when the round has used its seconds: a quarter of them for the warm-up. At least one
    warm-up (if any are asked for) and two timed runs (if two are asked for) happen however slow the model is.

    Args:
        max_seconds: time budget of warm-up and runs together.
        clock: seconds, monotonic.

    Returns:
        Milliseconds of each timed run, in order.
    """
    start = clock()
    for done in range(warmup):
        if done and clock() - start >= _WARMUP_SHARE * max_seconds:
            break
        infer()
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
