"""Files that take turns: opened, run round by round, closed, and what came out as reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edgekd.artifact import sha256_file
from edgekd.cpu import usable_cores
from edgekd.errors import ModelFileError, fault
from edgekd.profiles.machine import MachineState, read_own_cores
from edgekd.profiles.machine_cautions import machine_cautions
from edgekd.profiles.onnx_file import read_summary
from edgekd.profiles.plan import Plan
from edgekd.profiles.report import LatencyReport, sample_cautions, sample_facts
from edgekd.profiles.runner import Opened, Runner, RunnerFactory, RunSettings

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Case:
    """One file and how it is run. The same file may stand in several cases."""

    path: Path
    settings: RunSettings


@dataclass(frozen=True)
class _File:
    precision: str
    sha256: str


def run_cases(
    cases: Mapping[str, Case],
    plan: Plan,
    *,
    device: str,
    progress: Progress | None,
    runner_factory: RunnerFactory,
    read_state: Callable[[], MachineState] = read_own_cores,
    cores: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[dict[str, LatencyReport], tuple[str, ...]]:
    """Give each case its turns for as long as the plan says; reports by label, and the order of the turns.

    Raises:
        ModelFileError: a file is missing, broken, or needs a shape.
        EdgeKDError: a measuring process was killed or crashed.
    """
    files = {label: _read_file(case.path) for label, case in cases.items()}
    samples: dict[str, list[list[float]]] = {label: [] for label in cases}
    order: list[str] = []
    with ExitStack() as stack:
        runners: dict[str, Runner] = {}
        opened: dict[str, Opened] = {}
        for label, case in cases.items():
            runners[label] = runner_factory(case.path, case.settings)
            stack.callback(runners[label].close)
            opened[label] = runners[label].open()
        states, start = [read_state()], clock()
        for cycle in _cycles(list(cases), plan, samples, lambda: clock() - start):
            for label in cycle:
                if progress:
                    progress(*plan.progress(len(order), len(cases), clock() - start), label)
                samples[label].append(runners[label].round())
                order.append(label)
                states.append(read_state())
        seconds = clock() - start
        if progress:
            total = plan.progress(len(order), len(cases), seconds)[1]
            progress(total, total, "")
        finished = {label: runner.finish() for label, runner in runners.items()}
    around = {
        label: machine_cautions(
            states[0],
            states[-1],
            threads=case.settings.threads * case.settings.streams,
            cores=cores or usable_cores(),
            seconds=seconds,
            own_seconds=sum(each.cpu_seconds for each in finished.values()),
            wait_seconds=finished[label].wait_seconds,
            model_seconds=finished[label].cpu_seconds,
            between=states[1:],
        )
        for label, case in cases.items()
    }
    clocks = tuple(state.clock_mhz for state in states if state.clock_mhz is not None)
    temperatures = tuple(state.temperature_c for state in states if state.temperature_c is not None)
    reports = {
        label: LatencyReport(
            device=device,
            runtime=opened[label].runtime,
            runtime_version=opened[label].runtime_version,
            provider=opened[label].provider,
            threads=case.settings.threads,
            streams=case.settings.streams,
            batch=case.settings.batch,
            precision=opened[label].precision or files[label].precision,
            peak_memory_bytes=finished[label].peak_memory_bytes,
            base_memory_bytes=opened[label].base_memory_bytes,
            model_sha256=files[label].sha256,
            load_ms=opened[label].load_ms,
            first_inference_ms=opened[label].first_inference_ms,
            inputs=opened[label].inputs,
            notes=tuple(opened[label].notes),
            clocks_mhz=clocks,
            temperatures_c=temperatures,
            warnings=(*around[label], *plan.cautions(samples[label]), *sample_cautions(samples[label])),
            **sample_facts(samples[label]),
        )
        for label, case in cases.items()
    }
    return reports, tuple(order)


def _cycles(
    labels: list[str], plan: Plan, samples: dict[str, list[list[float]]], seconds: Callable[[], float]
) -> Iterator[list[str]]:
    """A B C, B C A, C A B, ... until the plan ends it."""
    turn = 0
    while plan.goes_on(samples, seconds()):
        start = turn % len(labels)
        yield labels[start:] + labels[:start]
        turn += 1


def _read_file(path: Path) -> _File:
    """What the file says of itself. Another runtime's file says it when that runtime opens it."""
    precision = read_summary(path).precision if path.suffix.lower() == ".onnx" else "unknown"
    try:
        return _File(precision, sha256_file(path))
    except OSError as error:
        raise ModelFileError(fault(str(path), "cannot be read", got=error.strerror or str(error))) from None
