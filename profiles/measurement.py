"""Measuring latency: every file in a process of its own, rounds interleaved, raw samples kept.

Four rules make the numbers comparable: (1) all files of a comparison are measured in one call; (2) each lives
in one process, idle while another runs, since pools of spinning threads slow their neighbours; (3) rounds go
A B C, B C A, C A B, so that heat, clock and other users hit all alike and none always follows the same one;
(4) what is compared is the ratio within a round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edgekd.artifact import sha256_file
from edgekd.cpu import usable_cores
from edgekd.errors import UserInputError, fault
from edgekd.profiles.inputs import Shape
from edgekd.profiles.machine import MachineState, machine_cautions, read_machine
from edgekd.profiles.onnx_file import read_summary
from edgekd.profiles.process import WorkerRunner
from edgekd.profiles.report import LatencyReport, sample_cautions, sample_facts
from edgekd.profiles.runner import Opened, Runner, RunnerFactory, RunSettings
from edgekd.profiles.statistics import Ratio, ratio

Progress = Callable[[int, int, str], None]


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
    threads: int = 1,
    rounds: int = 5,
    runs: int = 60,
    warmup: int = 10,
    batch: int = 1,
    shape: Shape = None,
    device: str = "cpu",
    max_seconds_per_round: float = 10.0,
    progress: Progress | None = None,
    runner_factory: RunnerFactory = WorkerRunner,
    read_state: Callable[[], MachineState] = read_machine,
    clock: Callable[[], float] = time.monotonic,
) -> Measurement:
    """Measure ONNX files on this machine, interleaved.

    Args:
        models: label to file; a label may stand for the same file as another.
        threads: of the runtime, for each file.
        rounds: turns of each file; 5 or more give a ratio an interval.
        runs, warmup: inferences of each turn.
        batch, shape: of the random inputs, as in :func:`edgekd.profiles.inputs.random_inputs`.
        device: name that the reports carry.
        max_seconds_per_round: a slow model makes fewer runs rather than take longer than this a turn.
        progress: called with turns done, turns in all and the label that comes next.

    Raises:
        ModelFileError: a file is missing, broken, or needs ``shape``.
        UserInputError: a number below its least value.
        EdgeKDError: a measuring process was killed or crashed.
    """
    _check(models, threads=threads, rounds=rounds, runs=runs, warmup=warmup, batch=batch)
    if max_seconds_per_round <= 0:
        raise UserInputError(
            fault("measure: max_seconds_per_round", "must be above 0", got=max_seconds_per_round)
        )
    settings = RunSettings(
        threads=threads,
        batch=batch,
        shape=_fixed(shape),
        runs=runs,
        warmup=warmup,
        max_seconds_per_round=max_seconds_per_round,
    )
    paths = {label: Path(path) for label, path in models.items()}
    precisions = {label: read_summary(path).precision for label, path in paths.items()}
    digests = {label: sha256_file(path) for label, path in paths.items()}
    order = [label for turn in range(rounds) for label in _rotated(list(paths), turn)]
    with ExitStack() as stack:
        runners: dict[str, Runner] = {}
        opened: dict[str, Opened] = {}
        for label, path in paths.items():
            runners[label] = runner_factory(path, settings)
            stack.callback(runners[label].close)
            opened[label] = runners[label].open()
        before, start = read_state(), clock()
        samples = _interleave(runners, order, progress)
        seconds, after = clock() - start, read_state()
        finished = {label: runner.finish() for label, runner in runners.items()}
    around = machine_cautions(
        before,
        after,
        threads=threads,
        cores=usable_cores(),
        seconds=seconds,
        own_seconds=sum(each.cpu_seconds for each in finished.values()),
    )
    reports = {
        label: LatencyReport(
            device=device,
            runtime=opened[label].runtime,
            runtime_version=opened[label].runtime_version,
            threads=threads,
            batch=batch,
            precision=precisions[label],
            peak_memory_bytes=finished[label].peak_memory_bytes,
            base_memory_bytes=opened[label].base_memory_bytes,
            model_sha256=digests[label],
            load_ms=opened[label].load_ms,
            first_inference_ms=opened[label].first_inference_ms,
            inputs=opened[label].inputs,
            warnings=(*around, *sample_cautions(samples[label])),
            **sample_facts(samples[label]),
        )
        for label in paths
    }
    return Measurement(reports, tuple(order))


def _interleave(
    runners: Mapping[str, Runner], order: Sequence[str], progress: Progress | None
) -> dict[str, list[list[float]]]:
    samples: dict[str, list[list[float]]] = {label: [] for label in runners}
    for turn, label in enumerate(order):
        if progress:
            progress(turn, len(order), label)
        samples[label].append(runners[label].round())
    if progress:
        progress(len(order), len(order), "")
    return samples


def _rotated(labels: list[str], turn: int) -> list[str]:
    start = turn % len(labels)
    return labels[start:] + labels[:start]


def _fixed(shape: Shape) -> tuple[int, ...] | dict[str, tuple[int, ...]] | None:
    if isinstance(shape, Mapping):
        return {name: tuple(dims) for name, dims in shape.items()}
    return None if shape is None else tuple(shape)


def _check(models: Mapping[str, Path], **numbers: int) -> None:
    if not models:
        raise UserInputError(fault("measure", "no model to measure"))
    for name, value in numbers.items():
        least = 0 if name == "warmup" else 1
        if value < least:
            raise UserInputError(
                fault(f"measure: {name}", "too small", got=value, allowed=f"{least} or more")
            )
