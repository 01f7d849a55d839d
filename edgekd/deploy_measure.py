"""Latency of the deployed file and of its baselines, interleaved, on the machine at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekd.baselines import STUDENT_FP32, TEACHER_FP32, Baselines
from edgekd.data.source import Progress
from edgekd.deploy_estimate import estimate_deployed
from edgekd.device import DeviceSpec
from edgekd.profiles import Measurement, measure, profile_operators
from edgekd.recipe import Recipe

DEPLOYED = "deployed"


def measure_deployed(
    entry: dict[str, Any],
    path: Path,
    baselines: Baselines,
    recipe: Recipe,
    spec: DeviceSpec,
    progress: Progress | None,
) -> None:
    """Latency of the file and both baselines: measured on the machine at hand, estimated for a board."""
    if spec.name != "cpu":
        estimate_deployed(entry, path, baselines, recipe, spec)
        return
    models = {DEPLOYED: path, STUDENT_FP32: baselines.student}
    if baselines.teacher is not None and not baselines.same:
        models[TEACHER_FP32] = baselines.teacher
    teacher = STUDENT_FP32 if baselines.same else TEACHER_FP32
    settings = recipe.profile

    def advance(done: int, total: int, label: str) -> None:
        if progress is not None:
            progress(f"measure {label}".strip(), done, total)

    entry["latency"] = []
    for position, threads in enumerate(settings.threads):
        found: Measurement = measure(
            models, threads=threads, rounds=settings.rounds, runs=settings.runs, warmup=settings.warmup,
            device=spec.name, progress=advance,
        )  # fmt: skip
        entry["latency"].append(found.reports[DEPLOYED].to_json())
        entry["baseline"]["latency"].append(found.reports[STUDENT_FP32].to_json())
        if baselines.teacher is not None:
            entry["baseline"]["teacher"]["latency"].append(found.reports[teacher].to_json())
            if position == 0:
                entry["speedup_vs_teacher"] = found.ratio(teacher, DEPLOYED).value
        if position == 0:
            _speedups(entry, found, threads)
    costs = profile_operators(path, threads=settings.threads[0])
    entry["operators"] = [cost.to_json() for cost in costs]


def _speedups(entry: dict[str, Any], found: Measurement, threads: int) -> None:
    against_student = found.ratio(STUDENT_FP32, DEPLOYED)
    entry["speedup_vs_student_fp32"] = against_student.value
    entry["speedup_interval"] = [against_student.low, against_student.high]
    as_fast = entry["quantization"] is None and against_student.high >= 1  # float against float: noise
    if against_student.value < 1 and not as_fast:
        entry["warnings"].insert(
            0, f"SLOWER: the deployed file takes {1 / against_student.value:.2f} times as long as its own "
            f"fp32 baseline ({threads} thread); ship baseline/student-fp32.onnx for speed",
        )  # fmt: skip
