"""``edgekd profile``: latency of ONNX files on this machine, interleaved. Never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgekd.cli.output import JsonOption, show, write_result


def profile(
    models: Annotated[
        list[Path], typer.Argument(help="ONNX files; several are measured in turn and compared.")
    ],
    device: Annotated[
        str, typer.Option(help="The machine at hand is 'cpu'; on a board, name the board.")
    ] = "cpu",
    threads: Annotated[int, typer.Option(help="Of the runtime.")] = 1,
    batch: Annotated[int, typer.Option()] = 1,
    rounds: Annotated[int, typer.Option(help="Turns of each file.")] = 5,
    runs: Annotated[int, typer.Option(help="Inferences in each turn.")] = 60,
    warmup: Annotated[int, typer.Option(help="Inferences before each turn that are not counted.")] = 10,
    shape: Annotated[
        str | None,
        typer.Option(
            help="Dimensions after the batch, or with it, where the file leaves them open: 3,224,224 or 1x128."
        ),
    ] = None,
    json_to: JsonOption = None,
) -> None:
    """Percentiles, spread and peak memory; the first file is what the others are compared with."""
    from edgekd.device import load_device
    from edgekd.errors import DeviceError, fault
    from edgekd.profiles import measure

    spec = load_device(device)
    import platform

    if spec.arch != platform.machine() or spec.runtime != "onnxruntime":
        raise DeviceError(
            fault(f"--device {device}", f"{spec.title} is not this machine ({platform.machine()})",
                  fix="run edgekd profile on the board itself; here --device cpu measures this machine")
        )  # fmt: skip
    from edgekd.cli.progress import progress_bar

    labels = _labels(models)
    with progress_bar() as progress:
        found = measure(
            labels, threads=threads, rounds=rounds, runs=runs, warmup=warmup, batch=batch, shape=_shape(shape),
            device=spec.name, progress=lambda done, total, label: progress(f"measure {label}".strip(), done, total),
        )  # fmt: skip
    first = next(iter(labels))
    ratios = {
        label: {"value": r.value, "low": r.low, "high": r.high, "confidence": r.confidence}
        for label in list(labels)[1:]
        for r in [found.ratio(first, label)]
    }
    result: dict[str, Any] = {
        "reports": {label: report.to_json() for label, report in found.reports.items()},
        "speedup_over_first": ratios,
    }
    if not write_result(result, json_to):
        show(_table(found.reports, ratios))
        for line in _text_inputs(found.reports, chosen=shape is not None):
            typer.echo(line)
        for text in dict.fromkeys(
            str(w) for report in found.reports.values() for w in report.to_json()["warnings"]
        ):
            typer.echo(f"warning: {text}", err=True)


def _labels(models: list[Path]) -> dict[str, Path]:
    names = [path.name for path in models]
    return {str(path) if names.count(path.name) > 1 else path.name: path for path in models}


def _shape(text: str | None) -> tuple[int, ...] | None:
    from edgekd.errors import UserInputError, fault

    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise UserInputError(fault("--shape", "not numbers", got=text, allowed="such as 3,224,224")) from None


def _text_inputs(reports: dict[str, Any], *, chosen: bool) -> list[str]:
    """What a text model was measured on: its length decides the time."""
    lengths: dict[int, list[str]] = {}
    for label, report in reports.items():
        if "input_ids" in report.inputs:
            lengths.setdefault(report.inputs["input_ids"][1], []).append(label)
    hint = "" if chosen else " (--shape 1x64 chooses another length)"
    return [f"{', '.join(labels)}: on {length} random tokens{hint}" for length, labels in lengths.items()]


def _table(reports: dict[str, Any], ratios: dict[str, Any]) -> object:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in (
        "file",
        "kind",
        "threads",
        "p50 ms",
        "p90",
        "p99",
        "rounds low..high",
        "peak MB",
        "x faster than first",
    ):
        table.add_column(name, justify="left" if name in ("file", "kind") else "right")
    for label, r in reports.items():
        ratio = ratios.get(label)
        table.add_row(
            label, r.kind, str(r.threads), f"{r.p50_ms:.3f}", f"{r.p90_ms:.3f}", f"{r.p99_ms:.3f}",
            f"{r.low_ms:.3f}..{r.high_ms:.3f}", f"{r.peak_memory_bytes / 1e6:.0f}",
            f"{ratio['value']:.2f} ({ratio['low']:.2f}..{ratio['high']:.2f})" if ratio else "",
        )  # fmt: skip
    return table
