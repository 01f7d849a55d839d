"""The limits of a recipe against what was measured."""

from __future__ import annotations

from pathlib import Path

from edgekd.errors import EdgeKDError, fault
from edgekd.recipe import LimitsRecipe
from edgekd.report import Report


def check_limits(report: Report, limits: LimitsRecipe, out: Path) -> None:
    """
    Raises:
        EdgeKDError: a deployed file misses a limit; says by how much. The run and its report stay.
    """
    teacher = next((stage for stage in report.stages if stage.name == "teacher"), None)
    before = None if teacher is None else teacher.metrics.accuracy
    for entry in report.deploy:
        name, after = entry.metrics.accuracy_name, entry.metrics.accuracy
        drop = None if before is None or after is None else before - after
        if limits.max_accuracy_drop is not None and drop is not None and drop > limits.max_accuracy_drop:
            raise EdgeKDError(
                fault(f"{entry.device}: {name}", "fell further under the teacher than the recipe allows",
                      got=f"{100 * drop:.2f} points", allowed=f"{100 * limits.max_accuracy_drop:.2f} points",
                      fix=f"the files and report.html are in {out}; train longer or choose a larger student")
            )  # fmt: skip
        for latency in entry.latency:
            # An estimate above the limit proves nothing while its range still reaches below it.
            known = latency.kind == "measured" or latency.low_ms is None
            p50_ms = latency.p50_ms if known else latency.low_ms
            if limits.max_latency_ms is not None and p50_ms is not None and p50_ms > limits.max_latency_ms:
                raise EdgeKDError(
                    fault(f"{entry.device}: p50", "slower than the recipe allows",
                          got=f"{'' if known else latency.kind + ', at least '}{p50_ms:.3f} ms",
                          allowed=f"{limits.max_latency_ms} ms",
                          fix=f"the files and report.html are in {out}; choose a smaller student")
                )  # fmt: skip
