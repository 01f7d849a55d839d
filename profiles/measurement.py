"""Measuring latency: every file in a process of its own, rounds interleaved, raw samples kept.

Four rules make the numbers comparable: (1) all files of a comparison are measured in one call; (2) each lives
in one process, idle while another runs, since pools of spinning threads slow their neighbours; (3) rounds go
A B C, B C A, C A B, so that heat, clock and other users hit all alike and none always follows the same one;
(4) what is compared is the ratio within a round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgekd.errors import UserInputError, fault
from edgekd.profiles.inputs import Shape
from edgekd.profiles.interleave import Case, Progress, run_cases
from edgekd.profiles.machine import MachineState, read_own_cores
from edgekd.profiles.plan import DEFAULT_SECONDS, DEFAULT_TARGET, FixedRounds, Plan, UntilKnown
from edgekd.profiles.process import start_runner
from edgekd.profiles.report import LatencyReport
from edgekd.profiles.runner import RunnerFactory, RunSettings
from edgekd.profiles.runtimes import runtime_of
from edgekd.profiles.statistics import Ratio, ratio

_NO_LIMIT = 10**9  # runs of a round that ends by its seconds


@dataclass(frozen=True)
class Measurement:
    """All reports of one call, and what compares them.

    Attributes:
        reports: by label, in the order of the models.
        order: labels in the order in which the rounds ran.
    """

    reports: dict[str, LatencyReport]
    order: tuple[str, ...]

    def ratio(self, slower: str, faster: str) -> Ratio:
        """How many times longer ``slower`` takes: the speed-up of ``faster`` over it, round by round."""
        return ratio(self.reports[slower].rounds_ms, self.reports[faster].rounds_ms)


def measure(
    models: Mapping[str, Path],
    *,
    threads: int | Mapping[str, int] = 1,
    rounds: int = 5,
    runs: int = 60,
    warmup: int = 10,
    batch: int | Mapping[str, int] = 1,
    shape: Shape = None,
    device: str = "cpu",
    max_seconds_per_round: float = 10.0,
    seconds: float | None = None,
    target: float | None = None,
    streams: int | Mapping[str, int] = 1,
    runtime: str | Mapping[str, str] | None = None,
    provider: str | Mapping[str, str] = "cpu",
    progress: Progress | None = None,
    runner_factory: RunnerFactory = start_runner,
    read_state: Callable[[], MachineState] = read_own_cores,
    cores: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Measurement:
    """Measure model files on this machine, interleaved.

    Either so many rounds of so many runs, or, with ``seconds`` or ``target``, until the median is known:
    then the number of rounds and runs and the length of the warm-up follow (:mod:`edgekd.profiles.plan`,
    :func:`edgekd.profiles.timing.warm_up_until_stable`).

    Args:
        models: label to file; a label may stand for the same file as another.
        threads: of the runtime, for each file; by label (1 where a label is missing) or one for all.
        rounds: turns of each file; 5 or more give a ratio an interval.
        runs, warmup: inferences of each turn.
        batch, shape: of the random inputs, as in :func:`edgekd.profiles.inputs.random_inputs`; the batch for
            all files or by label.
        device: name that the reports carry.
        max_seconds_per_round: a slow model makes fewer runs rather than take longer than this a turn.
        seconds: that each file may take at most (10 where only ``target`` is given). A model so slow that
            one turn takes longer still has that turn.
        target: half the width of the median's 95 % interval, as a fraction of it (0.02 where only
            ``seconds`` is given): reached by all files, the measurement ends.
        streams: callers of each model at the same time, for all files or by label; latencies are then those
            under that load.
        runtime: for all files or by label; None is the one that the suffix belongs to.
        provider: of ONNX Runtime (``cpu``, ``xnnpack``, ``cuda``, ``tensorrt``, ``openvino``), for all
            files or by label.
        progress: called with how much is done, of how much, and the label that comes next.
        runner_factory, read_state, cores: of the machine that is measured; None are the cores of this one.

    Raises:
        ModelFileError: a file is missing, broken, or needs ``shape``.
        MissingDependencyError: a runtime or provider is not installed; the line says what is.
        UserInputError: a number below its least value, an unknown runtime or provider.
        EdgeKDError: a measuring process was killed or crashed.
    """
    cases, plan = cases_of(
        models, threads=threads, rounds=rounds, runs=runs, warmup=warmup, batch=batch, shape=shape,
        max_seconds_per_round=max_seconds_per_round, seconds=seconds, target=target, streams=streams,
        runtime=runtime, provider=provider,
    )  # fmt: skip
    reports, order = run_cases(
        cases, plan, device=device, progress=progress, runner_factory=runner_factory,
        read_state=read_state, cores=cores, clock=clock,
    )  # fmt: skip
    return Measurement(reports, order)


def cases_of(
    models: Mapping[str, Path],
    *,
    threads: int | Mapping[str, int],
    rounds: int,
    runs: int,
    warmup: int,
    batch: int | Mapping[str, int],
    shape: Shape,
    max_seconds_per_round: float,
    seconds: float | None,
    target: float | None,
    streams: int | Mapping[str, int],
    runtime: str | Mapping[str, str] | None,
    provider: str | Mapping[str, str],
) -> tuple[dict[str, Case], Plan]:
    """What :func:`measure` was asked, checked: each file with its settings, and how long to go on.

    Raises:
        UserInputError: a number below its least value, an unknown runtime or provider.
    """
    if not models:
        raise UserInputError(fault("measure", "no model to measure"))
    for label in models:
        _check(
            threads=_number(threads, label), batch=_number(batch, label), streams=_number(streams, label),
            rounds=rounds, runs=runs, warmup=warmup,
        )  # fmt: skip
    for name, value in (
        ("max_seconds_per_round", max_seconds_per_round),
        ("seconds", seconds),
        ("target", target),
    ):
        if value is not None and not value > 0:
            raise UserInputError(fault(f"measure: {name}", "must be above 0", got=value))
    if target is not None and target >= 1:
        raise UserInputError(
            fault(
                "measure: target", "is a fraction of the median", got=target, allowed="below 1: 0.02 is 2 %"
            )
        )
    plan: Plan = FixedRounds(rounds)
    settings = RunSettings(
        shape=_fixed(shape), runs=runs, warmup=warmup, max_seconds_per_round=max_seconds_per_round
    )
    if seconds is not None or target is not None:
        plan = until = UntilKnown(seconds or DEFAULT_SECONDS, target or DEFAULT_TARGET, len(models))
        settings = replace(
            settings, runs=_NO_LIMIT, warmup=0, max_seconds_per_round=until.round_seconds, until_stable=True
        )
    cases = {}
    for label, path in models.items():
        chosen = runtime_of(Path(path), _of(runtime, label)).name
        at = _of(provider, label) or "cpu"
        if at != "cpu" and chosen != "onnxruntime":
            raise UserInputError(
                fault(f"provider {at!r}", f"belongs to onnxruntime; {label} runs in {chosen}", allowed="cpu")
            )
        cases[label] = Case(
            Path(path),
            replace(
                settings, runtime=chosen, provider=at, threads=_number(threads, label),
                batch=_number(batch, label), streams=_number(streams, label),
            ),
        )  # fmt: skip
    return cases, plan


def _of(choice: str | Mapping[str, str] | None, label: str) -> str | None:
    return choice.get(label) if isinstance(choice, Mapping) else choice


def _number(choice: int | Mapping[str, int], label: str) -> int:
    return choice.get(label, 1) if isinstance(choice, Mapping) else choice


def _fixed(shape: Shape) -> tuple[int, ...] | dict[str, tuple[int, ...]] | None:
    if isinstance(shape, Mapping):
        return {name: tuple(dims) for name, dims in shape.items()}
    return None if shape is None else tuple(shape)


def _check(**numbers: int) -> None:
    for name, value in numbers.items():
        least = 0 if name == "warmup" else 1
        if value < least:
            raise UserInputError(
                fault(f"measure: {name}", "too small", got=value, allowed=f"{least} or more")
            )
