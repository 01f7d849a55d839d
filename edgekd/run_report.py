"""Gather a run's facts into ``report.json`` and render it."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from edgekd.artifact import RunDirectory
from edgekd.cpu import detect_cpu
from edgekd.data.source import Dataset, is_text
from edgekd.errors import MissingDependencyError
from edgekd.models.loaded import LoadedModel
from edgekd.recipe import Recipe
from edgekd.report import Report, render_run, write_report
from edgekd.tasks.guessing import commonest_share

_PACKAGES = (
    "edgekd",
    "torch",
    "timm",
    "accelerate",
    "onnx",
    "onnxruntime",
    "numpy",
    "safetensors",
    "torch-pruning",
)


def write_run_report(
    run: RunDirectory,
    recipe: Recipe,
    data: Dataset,
    stages: Sequence[dict[str, Any]],
    deploy: Sequence[dict[str, Any]],
    *,
    device: str,
    teacher: LoadedModel | None,
    student: LoadedModel,
) -> Report:
    """Write ``report.json``, ``.md`` and ``.html`` into the run and return the report."""
    cpu = detect_cpu()
    baseline, missing = _text_baseline(run, data)
    report = Report.model_validate(
        {
            "recipe": {"name": recipe.name, "hash": recipe.hash()},
            "task": recipe.task,
            "models": {"teacher": recipe.teacher, "student": recipe.student},
            "data": {
                "name": data.name, "train": len(data.train), "validation": len(data.validation),
                "test": len(data.test), "classes": len(data.classes) or student.classes,
                "commonest": commonest_share(data.test.labels) if data.test.targets is None else None,
                "fingerprint": data.fingerprint, "provenance": data.provenance,
            },
            "versions": installed_versions(),
            "torch_device": device,
            "machine": {"cpu": cpu.title, "cores": cpu.cores, "threads": torch.get_num_threads()},
            "seeds": {"run": recipe.seed, "split": recipe.data.split_seed},
            "seconds": sum(float(part.get("seconds") or 0) for part in (*stages, *run.state["stages"].values())),
            "stages": [_stage(stage) for stage in stages],
            "text_baseline": baseline,
            "deploy": list(deploy),
            "warnings": [*data.warnings, *missing, *_weights(teacher, "teacher"), *_weights(student, "student")],
            "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
    )  # fmt: skip
    write_report(report, run.path / "report.json")
    render_run(run.path)
    return report


def _text_baseline(run: RunDirectory, data: Dataset) -> tuple[dict[str, Any] | None, list[str]]:
    """What a linear machine on word counts does on the same texts, found once a run; or why it is missing."""
    key = "text-baseline"
    if not is_text(data.train.source) or not all(split.labelled for split in data.splits()):
        return None, []
    if not run.is_done(key):
        from edgekd.tasks.text_baseline import NAME, text_baseline

        try:
            found = text_baseline(data)
        except MissingDependencyError as error:
            return None, [f"no {NAME} stands beside the results: {error}"]
        run.finish(key, entry=found, seconds=found["seconds"])
    entry: dict[str, Any] = run.state["stages"][key]["entry"]
    return entry, []


def installed_versions() -> dict[str, str]:
    """Python's and the packages' versions, of those that are installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _stage(metrics: dict[str, Any]) -> dict[str, Any]:
    """A stage's ``metrics.json`` in the report's words."""
    facts = metrics.get("facts", {})
    key = f"val_{facts.get('criterion', 'agreement')}"
    history = [{**{k: v for k, v in entry.items() if k != "val_metric"}, key: entry["val_metric"]}
               for entry in metrics.get("history", [])]  # fmt: skip
    stage = {**metrics, "history": history}
    if "scheme" in facts:
        stage["quantization"] = {
            "method": facts.get("method"), "algorithm": facts.get("algorithm"), "scheme": facts["scheme"],
            "smooth": facts.get("smooth"), "ranges": facts.get("ranges_chosen"),
            "kept_float": facts.get("kept_float", []), "zero_shares": facts.get("zero_shares", {}),
        }  # fmt: skip
    if prune := facts.get("prune"):
        permutation = prune.get("permutation")
        stage["kept_magnitude"] = (
            {"before": permutation["kept_before"], "after": prune["kept_magnitude"]}
            if permutation
            else prune["kept_magnitude"]
        )
    return stage


def _weights(model: LoadedModel | None, role: str) -> list[str]:
    if model is None or model.weights != "random" or role == "student":
        return []
    return [f"the {role} {model.spec} has random weights: its accuracy means nothing, sizes and latencies do"]
