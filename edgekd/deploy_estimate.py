"""Latency of a file for a board that is not at hand: estimated, beside its fp32 baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekd.baselines import Baselines
from edgekd.device import DeviceSpec
from edgekd.errors import EdgeKDError
from edgekd.profiles.estimation.api import estimate
from edgekd.profiles.predicted import LatencyEstimate
from edgekd.recipe import Recipe


def estimate_deployed(
    entry: dict[str, Any], path: Path, baselines: Baselines, recipe: Recipe, spec: DeviceSpec
) -> None:
    """Estimates of the file and both baselines under the same threads; says that nothing was measured.

    A file that the estimator cannot price costs the run a warning, never the run.
    """
    measure_it = f"edgekd profile {entry['file']} --host USER@BOARD measures it"
    # Without a word in the recipe: all of the board's fast cores, as its owner would run it.
    counts: list[int | None] = [None]
    if "threads" in recipe.profile.model_fields_set:
        counts = [*recipe.profile.threads]
    student, teacher = entry["baseline"]["latency"], (entry["baseline"].get("teacher") or {}).get("latency")
    try:
        own = [estimate(path, spec, threads=threads) for threads in counts]
        before = [estimate(baselines.student, spec, threads=threads) for threads in counts]
        student += [_entry(found) for found in before]
        if baselines.teacher is not None and teacher is not None:
            teacher += [_entry(estimate(baselines.teacher, spec, threads=threads)) for threads in counts]
    except EdgeKDError as error:
        entry["warnings"].append(
            f"latency on {spec.title} is neither measured nor estimated ({error}); {measure_it}"
        )
        return
    entry["latency"] = [_entry(found) for found in own]
    entry["warnings"].append(
        f"latency on {spec.title} is estimated, not measured: {own[0].basis}; {measure_it}"
    )
    gain = before[0].p50_ms / own[0].p50_ms
    if gain < 1 and entry["quantization"] is not None:
        entry["warnings"].insert(
            0, f"SLOWER, by estimate: on {spec.title} the deployed file takes {1 / gain:.2f} times as long as its "
            "own fp32 baseline; measure both there before shipping",
        )  # fmt: skip


def _entry(found: LatencyEstimate) -> dict[str, Any]:
    """As in ``report.json``; the operators of a board that nobody measured would only fill it."""
    written = found.to_json()
    del written["operators"]
    return written
