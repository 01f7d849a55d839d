"""What follows from a report: which latency stands for a file, ratios, drops. One place for all to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from edgekd.report.format import weights_kind
from edgekd.report.schema import Report, StageFacts
from edgekd.report.schema_base import Metrics
from edgekd.report.schema_deployed import BaselineFile, DeployFacts, LatencyFacts, Operator

Role = Literal["deployed", "student", "teacher"]
Baseline = Literal["student", "teacher"]
# What a deployed file's speed is compared with, and how it is called.
BASELINES: dict[Baseline, str] = {"student": "the same student in fp32", "teacher": "the teacher in fp32"}
FASTER = 1.02
"""A ratio that is called faster; less is within what rounds and estimates can tell."""
_KIND_ORDER = {"measured": 0, "emulated": 1, "estimated": 2}


@dataclass(frozen=True)
class FileFacts:
    """A deployed file or one of its baselines.

    Attributes:
        label: what a reader calls it.
        metrics: of the file; of the stage whose weights it has where the file was not ``evaluated``.
    """

    role: Role
    label: str
    file: str
    size_bytes: int | None
    compressed_bytes: int | None
    metrics: Metrics
    latency: Sequence[LatencyFacts]
    evaluated: bool


def stage_named(report: Report, *names: str) -> StageFacts | None:
    """The last stage with one of ``names``."""
    return next((stage for stage in reversed(report.stages) if stage.name in names), None)


def is_label_free(report: Report) -> bool:
    """No stage and no file has an accuracy: agreement with the teacher stands for accuracy."""
    metrics = [stage.metrics for stage in report.stages] + [entry.metrics for entry in report.deploy]
    return all(m.accuracy is None for m in metrics) and any(m.agreement is not None for m in metrics)


def score(metrics: Metrics, *, label_free: bool) -> float | None:
    """The accuracy, or agreement with the teacher where there are no labels."""
    return metrics.agreement if label_free else metrics.accuracy


def files_of(report: Report, entry: DeployFacts) -> list[FileFacts]:
    """The deployed file, the same student in fp32, the teacher in fp32: those that exist."""
    precision = next((row.precision for row in entry.latency if row.precision), None)
    if entry.quantization is not None and entry.quantization.weight_bytes is not None:
        precision = weights_kind(entry.quantization.scheme)
    elif any(variant.deployed and variant.name.startswith("mixed") for variant in entry.variants):
        precision = "mixed"
    elif precision is None and entry.quantization is not None:
        precision = "int8"
    pattern = entry.sparsity.pattern if entry.sparsity else None
    label = " ".join(part for part in ("deployed", precision, pattern) if part)
    own = entry.metrics
    found = [
        FileFacts(
            "deployed", label, entry.file, entry.size_bytes, entry.compressed_bytes, own, entry.latency, True
        )
    ]
    if entry.baseline is None:
        return found
    teacher = stage_named(report, "teacher")
    dense = stage_named(report, "student", "distill") or teacher
    found.append(_baseline("student", "student fp32", entry.baseline, dense))
    if entry.baseline.teacher is not None:
        found.append(_baseline("teacher", "teacher fp32", entry.baseline.teacher, teacher))
    return found


def _baseline(role: Role, label: str, file: BaselineFile, stage: StageFacts | None) -> FileFacts:
    metrics = file.metrics or (stage.metrics if stage else Metrics())
    evaluated = file.metrics is not None
    return FileFacts(
        role, label, file.file, file.size_bytes, file.compressed_bytes, metrics, file.latency, evaluated
    )


def main_latency(entries: Iterable[LatencyFacts]) -> LatencyFacts | None:
    """What stands for a file: measured before emulated before estimated, then the fewest threads."""
    return min(entries, key=lambda row: (_KIND_ORDER[row.kind], row.threads, row.batch), default=None)


def matching(entries: Iterable[LatencyFacts], like: LatencyFacts) -> LatencyFacts | None:
    """The entry that may be compared with ``like``: same kind, device, runtime, threads and batch."""
    key = (like.kind, like.device, like.runtime, like.threads, like.batch)
    return next(
        (row for row in entries if (row.kind, row.device, row.runtime, row.threads, row.batch) == key), None
    )


def speedup(entry: DeployFacts, against: Baseline) -> float | None:
    """How many times faster the deployed file is: what the run reported, else the ratio of comparable p50."""
    reported = entry.speedup_vs_student_fp32 if against == "student" else entry.speedup_vs_teacher
    if reported is not None:
        return reported
    pair = comparable(entry, against)
    return pair[1].p50_ms / pair[0].p50_ms if pair else None


def comparable(entry: DeployFacts, against: Baseline) -> tuple[LatencyFacts, LatencyFacts] | None:
    """The deployed file's main latency and the baseline's entry under the same conditions."""
    file: BaselineFile | None = entry.baseline
    if against == "teacher":
        file = entry.baseline.teacher if entry.baseline else None
    own = main_latency(entry.latency)
    other = matching(file.latency, own) if file and own else None
    return (own, other) if own and other else None


def ranges_overlap(one: LatencyFacts, other: LatencyFacts) -> bool:
    """True where the two ranges over rounds touch: the difference may be noise. Unknown ranges do not."""
    if None in (one.low_ms, one.high_ms, other.low_ms, other.high_ms):
        return False
    assert one.low_ms is not None and one.high_ms is not None
    assert other.low_ms is not None and other.high_ms is not None
    return one.low_ms <= other.high_ms and other.low_ms <= one.high_ms


def float_noise(entry: DeployFacts, against: Baseline) -> bool:
    """True where a file in float and its baseline differ by no more than their rounds: nothing to be said loudly."""
    pair = comparable(entry, against)
    in_float = entry.quantization is None or any(v.deployed and v.name == "fp32" for v in entry.variants)
    return in_float and pair is not None and ranges_overlap(*pair)


def size_reduction(entry: DeployFacts) -> tuple[float, str] | None:
    """How many times smaller the deployed file is, and than what: the teacher in fp32, else the student."""
    if entry.baseline is None or not entry.size_bytes:
        return None
    teacher = entry.baseline.teacher
    if teacher is not None and teacher.size_bytes:
        return teacher.size_bytes / entry.size_bytes, "the teacher in fp32"
    if entry.baseline.size_bytes:
        return entry.baseline.size_bytes / entry.size_bytes, "the same model in fp32"
    return None


def accuracy_change(report: Report, entry: DeployFacts) -> float | None:
    """Accuracy of the deployed file minus the teacher's, as a fraction."""
    teacher = stage_named(report, "teacher")
    before, after = None if teacher is None else teacher.metrics.accuracy, entry.metrics.accuracy
    return None if before is None or after is None else after - before


def all_warnings(report: Report) -> list[str]:
    """Every warning of the run once, in order; those of one device start with its name.

    Without those that the report tells elsewhere: that a file is slower is a verdict, layers in float have a
    table with the same reasons.
    """
    found = list(report.warnings)
    for entry in report.deploy:
        listed = {
            f"{layer.name} stays float: {layer.reason}"
            for variant in entry.variants
            if variant.deployed
            for layer in variant.float_layers
        }
        slower = any((speedup(entry, against) or 1) < 1 for against in BASELINES)
        found += [
            f"{entry.device}: {text}"
            for text in entry.warnings
            if text not in listed and not (slower and text.startswith("SLOWER"))
        ]
        told = []  # a teacher whose file is the student's has its rows too
        for file in files_of(report, entry):
            for row in file.latency:
                if row not in told:
                    found += [f"{entry.device}: {file.label}: {text}" for text in row.warnings]
                    told.append(row)
    return list(dict.fromkeys(found))


def slowest_operators(entry: DeployFacts, count: int = 12) -> list[Operator]:
    """The slowest first; a network may have hundreds."""
    return sorted(entry.operators, key=lambda operator: -operator.mean_us)[:count]


def device_name(entry: DeployFacts) -> str:
    return entry.device_title or entry.device
