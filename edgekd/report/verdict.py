"""Plain sentences about what the run reached. A file slower than its fp32 baseline comes first and loudly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgekd.report.exchange import exchange_sentence
from edgekd.report.facts import (
    BASELINES,
    FASTER,
    accuracy_change,
    comparable,
    device_name,
    float_noise,
    is_label_free,
    main_latency,
    ranges_overlap,
    size_reduction,
    speedup,
)
from edgekd.report.format import listing, milliseconds, percent, plural, points, ratio
from edgekd.report.schema import Report
from edgekd.report.schema_deployed import DeployFacts
from edgekd.tasks.guessing import guessing_doubt

Level = Literal["bad", "warn", "good", "note"]
_ORDER = {"bad": 0, "warn": 1, "good": 2, "note": 3}
# A fraction of the samples: whoever loses more than this has not only gained.
_MUCH = 0.02


@dataclass(frozen=True)
class Verdict:
    level: Level
    text: str


def verdicts(report: Report) -> list[Verdict]:
    """The worst first. Every sentence names its device."""
    found: list[Verdict] = []
    if not report.deploy:
        found.append(
            Verdict("bad", "No file was deployed: the run stopped before the export, or its gates failed.")
        )
    if is_label_free(report):
        text = "No labels were read: agreement with the teacher stands for accuracy, which itself is unknown."
        found.append(Verdict("note", text))
    found += _better_than_guessing(report)
    for entry in report.deploy:
        found += _speed(entry) + _guarantees(entry) + _gain(report, entry)
        if entry.exchange is not None:
            found.append(Verdict("note", f"{device_name(entry)}: {exchange_sentence(entry.exchange)}"))
    return sorted(found, key=lambda verdict: _ORDER[verdict.level])


def _better_than_guessing(report: Report) -> list[Verdict]:
    """Of the teacher that all are compared with; of the last stage where none teaches."""
    if not report.stages or (report.models.teacher or "").endswith("@random"):
        return []  # its weights are known to mean nothing
    teacher = next((stage for stage in report.stages if stage.name == "teacher"), None)
    who, stage = ("The teacher", teacher) if teacher else ("The trained model", report.stages[-1])
    doubt = guessing_doubt(who, stage.metrics.top1, report.data.commonest, report.data.test)
    return [Verdict("warn", doubt)] if doubt else []


def _speed(entry: DeployFacts) -> list[Verdict]:
    found = []
    name = device_name(entry)
    latency = main_latency(entry.latency)
    if latency is None:
        return [
            Verdict(
                "warn", f"{name}: no latency. The file was neither measured nor estimated on this device."
            )
        ]
    slower, unclear = [], []
    doubtful = False
    for against, what in BASELINES.items():
        gain = speedup(entry, against)
        if gain is None:
            continue
        pair = comparable(entry, against)
        overlap = pair is not None and ranges_overlap(*pair)
        if overlap and _deployed_in_float(entry):
            known = "on this machine, as measured" if latency.kind == "measured" else "there, by estimate"
            text = f"{name}: deployed in float: integers are not faster {known}."
            if against == "student":
                found.append(Verdict("warn", text))
        elif gain < 1 and not float_noise(entry, against):
            slower.append(f"{ratio(gain)} the speed of {what}")
            doubtful |= overlap
        elif overlap:
            unclear.append(f"{what} ({ratio(gain)})")
    if slower:
        told = milliseconds(latency.p50_ms, latency.kind)
        text = f"{name}: SLOWER than its fp32 baseline: {listing(slower)} ({told})."
        if doubtful:
            text += (
                " The ranges over rounds overlap: it may be noise."
                if latency.kind == "measured"
                else " The ranges overlap."
            )
        if entry.baseline is not None and (speedup(entry, "student") or 1) < 1:
            text += f" For speed, ship {entry.baseline.file}."
        found.append(Verdict("bad", text))
    if unclear:
        found.append(
            Verdict("warn", f"{name}: no clear speed-up over {listing(unclear)}: their ranges overlap.")
        )
    if latency.kind != "measured":
        text = (
            f"{name}: latency is {latency.kind}, not measured: {milliseconds(latency.p50_ms, latency.kind)}"
        )
        if latency.low_ms is not None and latency.high_ms is not None:
            low, high = milliseconds(latency.low_ms), milliseconds(latency.high_ms)
            text += f", likely between {low} and {high}"
        text += "." if latency.validated else ". No board has confirmed it."
        found.append(Verdict("warn", text))
    return found


def _deployed_in_float(entry: DeployFacts) -> bool:
    return any(variant.deployed and variant.name == "fp32" for variant in entry.variants)


def _guarantees(entry: DeployFacts) -> list[Verdict]:
    found = []
    name = device_name(entry)
    sparsity, quantization = entry.sparsity, entry.quantization
    if sparsity is not None and sparsity.violations:
        text = (
            f"{name}: {plural(sparsity.violations, 'group')} of weights in the file break {sparsity.pattern}."
        )
        found.append(Verdict("bad", text))
    if quantization is not None and quantization.float_ops:
        total = quantization.integer_ops + quantization.float_ops
        text = f"{name}: {quantization.float_ops} of {total} convolutions and linears still run in float."
        found.append(Verdict("warn", text))
    kept = []
    if sparsity is not None and not sparsity.violations and sparsity.layers:
        layers = f"{sparsity.layers} of {plural(sparsity.layers_total, 'layer')}"
        kept.append(f"{sparsity.pattern} holds in {layers} of the written file")
    if quantization is not None and not quantization.float_ops and quantization.integer_ops:
        means = "are quantized for TensorRT" if entry.runtime == "tensorrt" else "run in integer kernels"
        kept.append(f"all {quantization.integer_ops} convolutions and linears {means}")
    if entry.parity is not None:
        same, samples = percent(entry.parity.agreement), plural(entry.parity.samples, "sample")
        kept.append(f"the file gives the trained model's answer on {same} of {samples}")
    if kept:
        sentence = listing(kept)
        found.append(Verdict("good", f"{name}: {sentence}."))
    return found


def _gain(report: Report, entry: DeployFacts) -> list[Verdict]:
    parts = []
    smaller = size_reduction(entry)
    faster = speedup(entry, "teacher")
    other = "the teacher in fp32"
    if faster is None:
        faster, other = speedup(entry, "student"), "the same model in fp32"
    latency = main_latency(entry.latency)
    kind = "" if latency is None or latency.kind == "measured" else f" ({latency.kind})"
    if smaller is not None and smaller[0] >= 1:
        parts.append(f"{ratio(smaller[0])} smaller than {smaller[1]}")
    if faster is not None and faster >= 1:
        pace = f"as fast{kind} as" if faster < FASTER else f"{ratio(faster)}{kind} faster than"
        if parts and smaller is not None and smaller[1] == other:
            parts = [f"{ratio(smaller[0])} smaller and {pace} {other}"]
        else:
            parts.append(f"{pace} {other}")
    change = accuracy_change(report, entry)
    if change is not None:
        parts.append(f"{points(change)} points of accuracy")
    level: Level = "good" if change is None or change >= -_MUCH else "warn"
    return [Verdict(level, f"{device_name(entry)}: {', '.join(parts)}.")] if parts else []
