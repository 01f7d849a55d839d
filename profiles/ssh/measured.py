"""Measuring model files on a board: what :func:`edgekd.profiles.measure` does here, done there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from edgekd.artifact import sha256_file
from edgekd.device import DeviceSpec, load_device
from edgekd.errors import DeviceError, fault
from edgekd.profiles.cautions import CautionKind
from edgekd.profiles.inputs import Shape
from edgekd.profiles.interleave import run_cases
from edgekd.profiles.machine import MachineState
from edgekd.profiles.measurement import Measurement, cases_of
from edgekd.profiles.report import LatencyReport
from edgekd.profiles.runner import RunSettings
from edgekd.profiles.runtimes import RUNTIMES
from edgekd.profiles.ssh.board import Board
from edgekd.profiles.ssh.destination import SshOptions
from edgekd.profiles.ssh.files import board_files, copy_files
from edgekd.profiles.ssh.health import BoardHealth, board_health, health_cautions
from edgekd.profiles.ssh.kept import KeptRounds, KeptRunner, kept_path
from edgekd.profiles.ssh.remote import RemoteRunner

# What the board's Python must be able to import for each runtime.
_MODULES = {
    "onnxruntime": ("numpy", "onnxruntime"),
    "openvino": ("numpy", "openvino"),
    "executorch": ("numpy", "torch", "executorch"),
    "litert": ("numpy", "ai_edge_litert"),
    "trtexec": ("numpy",),
}

Progress = Callable[[int, int, str], None]


def measure_on_host(
    models: Mapping[str, Path],
    host: str,
    *,
    device: str | None = None,
    threads: int | Mapping[str, int] = 1,
    rounds: int = 5,
    runs: int = 60,
    warmup: int = 10,
    batch: int | Mapping[str, int] = 1,
    shape: Shape = None,
    max_seconds_per_round: float = 10.0,
    seconds: float | None = None,
    target: float | None = None,
    streams: int | Mapping[str, int] = 1,
    runtime: str | Mapping[str, str] | None = None,
    provider: str | Mapping[str, str] = "cpu",
    progress: Progress | None = None,
    options: SshOptions | None = None,
    resume: bool = True,
) -> Measurement:
    """Measure model files on a board that ssh reaches.

    The board needs Python 3.8 with the runtime and numpy; edgekd's own code travels with the call and leaves
    with it. All files are copied first, then loaded, each by a worker of its own, then the copies are removed,
    then the rounds run interleaved as in :func:`edgekd.profiles.measure`, whose arguments these are.

    Args:
        host: ``[user@]name`` as ssh takes it, with the user's own configuration, keys and known hosts.
        device: what the board must be, by name or file; None takes it as it is.
        progress: as in ``measure``; while files are copied the label is ``copy to HOST``, of 100 percent.
        resume: a call that broke off has left its finished rounds here; the same call goes on from there.

    Raises:
        UserInputError: ``host`` is no host name; what ``measure`` refuses.
        HostError: the board cannot be reached, refuses, is full, or has too old a Python; one line.
        DeviceError: the board is not what ``device`` says.
        MissingDependencyError: the board lacks the runtime; says how to install it.
        ModelFileError: a file is missing, broken, or cannot be loaded there.
        EdgeKDError: the connection was lost, or a worker died there.
    """
    chosen = options or SshOptions()
    paths = {label: Path(path) for label, path in models.items()}
    cases, plan = cases_of(
        paths, threads=threads, rounds=rounds, runs=runs, warmup=warmup, batch=batch, shape=shape,
        max_seconds_per_round=max_seconds_per_round, seconds=seconds, target=target, streams=streams,
        runtime=runtime, provider=provider,
    )  # fmt: skip
    runtimes = {label: RUNTIMES[case.settings.runtime] for label, case in cases.items()}
    copies = {
        path: board_files(path, [runtimes[label].name for label, other in paths.items() if other == path])
        for path in paths.values()
    }
    question = {
        "host": host, "device": device, "plan": repr(plan),
        "cases": {label: repr(replace(case, path=Path())) for label, case in cases.items()},
        "files": {label: [sha256_file(file.source) for file in copies[path]] for label, path in paths.items()},
    }  # fmt: skip
    kept = KeptRounds(kept_path(question) if resume else None, list(paths))
    with Board(host, chosen) as board:
        spec = _check_device(board, device)
        python = board.python(
            sorted({module for each in runtimes.values() for module in _MODULES[each.name]})
        )
        places = copy_files(board, copies, _copying(progress, host))
        board.ask("the start of the monitor", do="watch")
        labels = iter(paths)
        looks: list[dict[str, str]] = []

        def start(path: Path, settings: RunSettings) -> KeptRunner:
            label = next(labels)
            number = list(paths).index(label)
            inner = RemoteRunner(
                board, number, python=python, remote_path=places[path], path=path, settings=settings
            )
            return KeptRunner(inner, label, kept)

        def read_state() -> MachineState:
            if not looks and all(each.in_worker for each in runtimes.values()):  # all models are loaded
                board.ask("the removal of the copies", do="loaded")
            looks.append(board.health(often=bool(looks)))
            return board.state()

        reports, order = run_cases(
            cases, plan, device=spec.name if spec else str(board.about["model"] or board.about["machine"]),
            progress=progress, runner_factory=start, read_state=read_state, cores=int(board.about["cores"]),
        )  # fmt: skip
        looks.append(board.health())
        board.goodbye()
    kept.done()
    return Measurement(
        {
            label: _with_health(report, host, board_health(looks, kept.monitor[label], report.mean_ms), kept)
            for label, report in reports.items()
        },
        order,
    )


def _with_health(report: LatencyReport, host: str, health: BoardHealth, kept: KeptRounds) -> LatencyReport:
    told = health_cautions(health)
    # The firmware's own words say more than the kernel's.
    warnings = [w for w in report.warnings if not (told and w.kind is CautionKind.THROTTLED)]
    return replace(report, host=host, health=health, warnings=(*told, *kept.cautions(), *warnings))


def _check_device(board: Board, device: str | None) -> DeviceSpec | None:
    """The device's facts, where one is named.

    Raises:
        DeviceError: the board has another architecture.
    """
    if device is None:
        return None
    spec = load_device(device)
    machine = str(board.about["machine"])
    if spec.arch != machine:
        fix = "name the device that it is, or leave --device out"
        what = f"{board.host} ({board.about['model'] or 'a machine'}) is no {spec.title}: other architecture"
        raise DeviceError(fault(f"--device {device}", what, got=machine, allowed=spec.arch, fix=fix))
    return spec


def _copying(progress: Progress | None, host: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda sent, size: progress(100 * sent // max(1, size), 100, f"copy to {host}")
