"""What the run was and its four numbers for each device."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.report.facts import (
    BASELINES,
    FASTER,
    Baseline,
    accuracy_change,
    device_name,
    float_noise,
    is_label_free,
    main_latency,
    size_reduction,
    speedup,
    stage_named,
)
from edgekd.report.format import (
    MISSING,
    byte_count,
    duration,
    listing,
    milliseconds,
    percent,
    plural,
    points,
    ratio,
    span,
)
from edgekd.report.schema import Report
from edgekd.report.schema_deployed import DeployFacts

_AGAINST: tuple[Baseline, ...] = ("teacher", "student")


@dataclass(frozen=True)
class Tile:
    """A big number. ``kind``: how a latency was had; ``alarm`` is said loudly."""

    name: str
    value: str
    details: tuple[str, ...]
    kind: str | None = None
    alarm: str | None = None


def title(report: Report) -> str:
    """What was compressed and for what device."""
    teacher, student = report.models.teacher, report.models.student
    subject = report.recipe.name
    if teacher and student and student not in ("same", teacher):
        subject = f"{model_name(teacher)} into {model_name(student)}"
    elif known := teacher or student:
        subject = model_name(known)
    devices = list(dict.fromkeys(device_name(entry) for entry in report.deploy))
    return f"{subject}, for {listing(devices)}" if devices else subject


def model_name(spec: str) -> str:
    """A spec as a reader says it: ``timm:resnet18@a/b.pt`` is ``resnet18``, ``torch:a/b.py:f`` ``b.py:f``.

    A stage's folder goes by its run: ``a/flowers/stages/02-distill`` is ``flowers``.
    """
    scheme, _, rest = spec.partition(":")
    rest = rest if scheme in ("timm", "torch", "onnx", "hf") and rest else spec
    name, _, settings = rest.partition("@")[0].partition("?")
    parts = name.rstrip("/").split("/")
    told = parts[-3] if len(parts) > 2 and parts[-2] == "stages" else parts[-1]
    return f"{told or spec} ({settings.replace('&', ', ')})" if settings else told or spec


def subtitle(report: Report) -> str:
    data = report.data
    stages = [stage.name for stage in report.stages if stage.name not in ("teacher", "student")]
    done = f"{' → '.join(stages)} in {duration(report.seconds)}" if stages else duration(report.seconds)
    return (
        f"Recipe {report.recipe.name}: {done}. Judged on {plural(data.test, 'test sample')} of {data.name}."
    )


def tiles(report: Report, entry: DeployFacts) -> list[Tile]:
    return [_accuracy(report, entry), _size(entry), _latency(entry), _guarantee(entry)]


def _accuracy(report: Report, entry: DeployFacts) -> Tile:
    if is_label_free(report):
        return Tile("Agreement", percent(entry.metrics.agreement), ("with the teacher; no labels were read",))
    details = []
    change = accuracy_change(report, entry)
    teacher = stage_named(report, "teacher")
    if change is not None and teacher is not None:
        details.append(f"{points(change)} points against the teacher ({percent(teacher.metrics.accuracy)})")
    if entry.metrics.agreement is not None:
        details.append(f"agrees with the teacher on {percent(entry.metrics.agreement, 1)}")
    return Tile(f"Accuracy, {entry.metrics.accuracy_name}", percent(entry.metrics.accuracy), tuple(details))


def _size(entry: DeployFacts) -> Tile:
    details = []
    smaller = size_reduction(entry)
    if smaller is not None:
        factor, what = smaller
        told = (
            f"{ratio(factor)} smaller than {what}"
            if factor >= 1
            else f"{ratio(1 / factor)} the size of {what}"
        )
        details.append(told)
    if entry.compressed_bytes is not None:
        details.append(f"{byte_count(entry.compressed_bytes)} compressed")
    return Tile("Size", byte_count(entry.size_bytes), tuple(details))


def _latency(entry: DeployFacts) -> Tile:
    latency = main_latency(entry.latency)
    if latency is None:
        return Tile("Latency, p50", MISSING, ("neither measured nor estimated",))
    details = []
    alarms = []
    for against in _AGAINST:
        gain, what = speedup(entry, against), BASELINES[against]
        if gain is None:
            continue
        if gain < 1 and float_noise(entry, against):
            details.append(f"as fast as {what}, within its rounds")
        elif gain < 1:
            alarms.append(f"{ratio(gain)} the speed of {what}")
        elif gain < FASTER:
            details.append(f"as fast as {what}")
        else:
            details.append(f"{ratio(gain)} faster than {what}")
    details.append(f"{plural(latency.threads, 'thread')}, batch {latency.batch}")
    if latency.low_ms is not None and latency.high_ms is not None:
        what = "rounds" if latency.kind == "measured" else "range"
        details.append(f"{what}: {span(latency.low_ms, latency.high_ms)} ms")
    value = milliseconds(latency.p50_ms, latency.kind)
    alarm = f"SLOWER: {listing(alarms)}" if alarms else None
    return Tile("Latency, p50", value, tuple(details), latency.kind, alarm)


def _guarantee(entry: DeployFacts) -> Tile:
    sparsity, quantization = entry.sparsity, entry.quantization
    integer = f"{percent(quantization.coverage)} in integer kernels" if quantization else "not quantized"
    if sparsity is None:
        if quantization is None:
            return Tile("Integer kernels", MISSING, ("neither pruned nor quantized",))
        total = quantization.integer_ops + quantization.float_ops
        text = f"{quantization.integer_ops} of {total} convolutions and linears"
        return Tile("Integer kernels", percent(quantization.coverage), (text, "not pruned"))
    covered = f"in {sparsity.layers} of {plural(sparsity.layers_total, 'layer')}"
    alarm = f"{sparsity.pattern} does not hold" if sparsity.violations else None
    return Tile(f"{sparsity.pattern} violations", f"{sparsity.violations:,}", (covered, integer), alarm=alarm)
