"""``edgekd profile``: how fast ONNX files are: measured here or over SSH, emulated, or estimated. Never torch."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekd.cli.output import JsonOption

if TYPE_CHECKING:
    from edgekd.cli.asked import Asked


class Method(StrEnum):
    measure = "measure"
    emulate = "emulate"
    estimate = "estimate"


def profile(
    models: Annotated[
        list[Path], typer.Argument(help="Model files; several are measured in turn and compared.")
    ],
    device: Annotated[
        list[str] | None,
        typer.Option(help="A board's name or file, several for estimates; 'cpu' is the machine at hand."),
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="USER@BOARD", help="Measure there, over your own ssh set-up.")
    ] = None,
    setup_venv: Annotated[
        bool,
        typer.Option(
            "--setup-venv",
            help="With --host: first install onnxruntime and numpy there, in ~/.cache/edgekd/venv.",
        ),
    ] = False,
    method: Annotated[
        Method | None,
        typer.Option(
            help="Without it: measured where the device is this machine or has a --host, else estimated."
        ),
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            help="onnxruntime, openvino, executorch, litert, trtexec; estimates: onnxruntime, tensorrt, "
            "tflite, ncnn. Several are compared."
        ),
    ] = None,
    provider: Annotated[
        str, typer.Option(help="Of ONNX Runtime: cpu, xnnpack, cuda, tensorrt, openvino.")
    ] = "cpu",
    precision: Annotated[
        str | None, typer.Option(help="Of an estimate: fp32, fp16 or int8. Without it: the file's.")
    ] = None,
    power_mode: Annotated[
        str | None, typer.Option(help="Of an estimate, as nvpmodel calls it, such as MAXN.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Of the runtime. Measured: 1; else all of the board's fast cores.")
    ] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Items at a time; several are compared.")] = None,
    streams: Annotated[
        list[int] | None, typer.Option(help="Callers of a model at the same time; several are compared.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Measure until the median is known, at most so long for each file.")
    ] = None,
    target: Annotated[
        float | None, typer.Option(help="How well it must be known: 0.02 is within 2 %.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Turns of each file.")] = 5,
    runs: Annotated[int, typer.Option(help="Inferences in each turn.")] = 60,
    warmup: Annotated[int, typer.Option(help="Inferences before each turn that are not counted.")] = 10,
    shape: Annotated[
        str | None,
        typer.Option(
            help="Dimensions after the batch, or with it, where the file leaves them open: 3,224,224 or 1x128."
        ),
    ] = None,
    operators: Annotated[bool, typer.Option(help="Also where the time goes, operator by operator.")] = False,
    raw: Annotated[bool, typer.Option(help="Every sample in the JSON.")] = False,
    json_to: JsonOption = None,
) -> None:
    """How fast ONNX files are: measured, emulated or estimated.

    Each number says which it is. The first file is what the others are compared with. With several --batch or
    --streams, each file at every pair of them: items a second tell which is best.
    """
    from edgekd.cli.asked import Asked

    asked = Asked(
        models=tuple(models), devices=tuple(device or ()), host=host, runtimes=tuple(runtime or ()),
        provider=provider, precision=precision, power_mode=power_mode, threads=threads, batches=tuple(batch or (1,)),
        streams=tuple(streams or (1,)), seconds=seconds, target=target, rounds=rounds, runs=runs, warmup=warmup,
        shape=_shape(shape), operators=operators, raw=raw, setup_venv=setup_venv,
    )  # fmt: skip
    asked.check(json=json_to is not None)
    chosen = method or (Method.measure if asked.is_at_hand() else Method.estimate)
    if chosen is Method.measure:
        _measure(asked, json_to)
    else:
        _predict(asked, chosen, json_to)


def _measure(asked: Asked, json_to: str | None) -> None:
    from edgekd.cli.measured import measure_asked, print_measured

    found, costs = measure_asked(asked)
    print_measured(found, costs, raw=asked.raw, chosen_shape=asked.shape is not None, json_to=json_to)


def _predict(asked: Asked, method: Method, json_to: str | None) -> None:
    from edgekd.cli.predicted import predict_asked, print_predicted

    rows = predict_asked(asked, emulated=method is Method.emulate)
    print_predicted(rows, operators=asked.operators, json_to=json_to)


def _shape(text: str | None) -> tuple[int, ...] | None:
    from edgekd.errors import UserInputError, fault

    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise UserInputError(fault("--shape", "not numbers", got=text, allowed="such as 3,224,224")) from None
