"""What ``edgekd profile`` says of files that were measured: here, or on a board over SSH."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from edgekd.cli.output import show, write_result
from edgekd.cli.predicted import grid

if TYPE_CHECKING:
    from edgekd.cli.asked import Asked
    from edgekd.profiles.measurement import Measurement
    from edgekd.profiles.operators import OperatorCost
    from edgekd.profiles.report import LatencyReport

_SLOWEST = 12
Operators = Mapping[str, "list[OperatorCost]"]


def print_measured(
    found: Measurement, operators: Operators, *, raw: bool, chosen_shape: bool, json_to: str | None
) -> None:
    """Percentiles and ratios to the first file; where the microseconds go; warnings on stderr."""
    first, *rest = found.reports
    load = _load(found.reports[first])
    # The latency of another batch is that of another question: items a second compare those.
    ratios = {label: found.ratio(first, label) for label in rest if _load(found.reports[label]) == load}
    result: dict[str, Any] = {
        "reports": {label: report.to_json(raw=raw) for label, report in found.reports.items()},
        "speedup_over_first": {
            label: {"value": r.value, "low": r.low, "high": r.high, "confidence": r.confidence}
            for label, r in ratios.items()
        },
    }
    if operators:
        result["operators"] = {
            label: [cost.to_json() for cost in costs] for label, costs in operators.items()
        }
    if write_result(result, json_to):
        return
    show(_table(found.reports, ratios))
    for line in _text_inputs(found.reports, chosen=chosen_shape):
        typer.echo(line)
    for line in _energy(found.reports):
        typer.echo(line)
    for label, costs in operators.items():
        typer.echo(f"\n{label}: its {min(_SLOWEST, len(costs))} slowest of {len(costs)} operators")
        show(_operator_table(costs))
    for label, report in found.reports.items():
        for note in report.notes:
            typer.echo(f"note: {label}: {note}", err=True)
    several = len(found.reports) > 1
    for label, report in found.reports.items():
        for caution in report.warnings:
            typer.echo(f"warning: {f'{label}: ' if several else ''}{caution}", err=True)


def _load(report: LatencyReport) -> tuple[int, int]:
    return report.batch, report.streams


def measure_asked(asked: Asked) -> tuple[Measurement, Operators]:
    """Measure here or on the host; profile the operators of ONNX files where asked to."""
    from edgekd.cli.progress import progress_bar
    from edgekd.profiles import in_each_runtime, measure, profile_operators
    from edgekd.profiles.ssh.measured import measure_on_host
    from edgekd.profiles.ssh.setup import setup_venv
    from edgekd.profiles.throughput import at_each_load

    device = asked.measured_device()
    threads = 1 if asked.threads is None else asked.threads
    files, runtimes = in_each_runtime(asked.labels(), asked.runtimes)
    loads = at_each_load(files, asked.batches, asked.streams)
    models = {label: load.path for label, load in loads.items()}
    with progress_bar() as progress:

        def told(done: int, total: int, label: str) -> None:
            copying = label.startswith("copy to ")
            progress(label if copying else f"measure {label}".strip(), done, total)

        common: dict[str, Any] = {
            "threads": threads, "rounds": asked.rounds, "runs": asked.runs, "warmup": asked.warmup,
            "batch": {label: load.batch for label, load in loads.items()},
            "streams": {label: load.streams for label, load in loads.items()},
            "runtime": {label: runtimes[load.model] for label, load in loads.items()},
            "shape": asked.shape, "seconds": asked.seconds, "target": asked.target,
            "provider": asked.provider, "progress": told,
        }  # fmt: skip
        if asked.host is not None:
            named = device if asked.devices else None
            if asked.setup_venv:
                setup_venv(asked.host, told=lambda line: progress(line, 0, 1))
            return measure_on_host(models, asked.host, device=named, **common), {}
        found = measure(models, device=device, **common)
    if not asked.operators:
        return found, {}
    return found, {
        label: profile_operators(
            load.path, threads=threads, batch=load.batch, shape=asked.shape, provider=asked.provider
        )
        for label, load in loads.items()
        if runtimes[load.model] == "onnxruntime"
    }


def _table(reports: Mapping[str, LatencyReport], ratios: Mapping[str, Any]) -> Any:
    loaded = any(report.streams > 1 or report.batch > 1 for report in reports.values())
    names = ["file", "kind", "runtime", "threads", "p50 ms", "p90", "p99", "rounds low..high", "first run ms"]
    names += [*(["items/s"] if loaded else []), "peak MB", *(["x faster than first"] if ratios else [])]
    table = grid(*names, left=3)
    for label, r in reports.items():
        cells = [
            label, r.kind, f"{r.runtime} {r.runtime_version}".strip(), str(r.threads), f"{r.p50_ms:.3f}",
            f"{r.p90_ms:.3f}", f"{r.p99_ms:.3f}", f"{r.low_ms:.3f}..{r.high_ms:.3f}", f"{r.first_inference_ms:.1f}",
        ]  # fmt: skip
        if loaded:
            cells.append(f"{r.items_per_second:.1f}")
        cells.append(f"{r.peak_memory_bytes / 1e6:.0f}")
        if ratios:
            ratio = ratios.get(label)
            cells.append(f"{ratio.value:.2f} ({ratio.low:.2f}..{ratio.high:.2f})" if ratio else "")
        table.add_row(*cells)
    return table


def _energy(reports: Mapping[str, LatencyReport]) -> list[str]:
    """What a board that measures its power says of it."""
    lines = []
    for label, report in reports.items():
        health = report.health
        if health and health.energy_mj is not None and health.power_mw is not None:
            mode = f", power mode {health.power_mode}" if health.power_mode else ""
            rails = " + ".join(health.power_rails)
            text = f"{label}: {health.energy_mj:.3g} mJ an inference at {health.power_mw / 1e3:.2f} W"
            lines.append(f"{text} ({rails}, {health.power_samples} samples{mode})")
    return lines


def _text_inputs(reports: Mapping[str, LatencyReport], *, chosen: bool) -> list[str]:
    """What a text model was measured on: its length decides the time."""
    lengths: dict[int, list[str]] = {}
    for label, report in reports.items():
        if "input_ids" in report.inputs:
            lengths.setdefault(report.inputs["input_ids"][1], []).append(label)
    hint = "" if chosen else " (--shape 1x64 chooses another length)"
    return [f"{', '.join(labels)}: on {length} random tokens{hint}" for length, labels in lengths.items()]


def _operator_table(costs: list[OperatorCost]) -> Any:
    """By the layers of the network; where the file names none, by the runtime's own node."""
    table = grid("layer", "operator", "µs", "share", left=2)
    for cost in costs[:_SLOWEST]:
        table.add_row(cost.layer or cost.node, cost.op_type, f"{cost.mean_us:.1f}", f"{cost.share:.1%}")
    return table
