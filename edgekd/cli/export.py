"""``edgekd export``: a model to fp32 ONNX, batch norm folded, dynamic batch, opset read back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgekd.cli.output import JsonOption, write_result

_RUNTIMES = {".onnx": "ONNX Runtime, TensorRT", ".pte": "ExecuTorch", ".tflite": "LiteRT"}


def export(
    model: Annotated[
        str, typer.Argument(help="timm:NAME[@FILE|@random], torch:FILE.py:FACTORY[@FILE], a saved directory.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="The ONNX file to write; .pte is for ExecuTorch, .tflite for LiteRT."
        ),
    ],
    device: Annotated[str, typer.Option(help="Chooses the opset that the device's runtime loads.")] = "cpu",
    opset: Annotated[int | None, typer.Option(help="Instead of the device's.")] = None,
    size: Annotated[int | None, typer.Option(help="Input side, pixels; unset: the model's own.")] = None,
    json_to: JsonOption = None,
) -> None:
    """A model as it is, to an fp32 ONNX file.

    Batch norm is folded, the batch left open, the opset read back. What compress deploys is exported by compress.
    """
    from edgekd.artifact import check_writable, write_text
    from edgekd.cli.compress import absolute_spec
    from edgekd.cli.needs import need_compress
    from edgekd.device import check_operators, check_opset, load_device
    from edgekd.errors import OutputError, fault

    if output.suffix.lower() not in _RUNTIMES:
        allowed = ", ".join(f"{suffix} ({runtime})" for suffix, runtime in _RUNTIMES.items())
        raise OutputError(
            fault(str(output), "no runtime takes such a file", got=output.suffix, allowed=allowed)
        )
    check_writable(output, fix="choose another -o")
    spec = load_device(device)
    check_opset(spec, opset or spec.opset_export)
    need_compress()
    import numpy as np
    import torch

    from edgekd.errors import DeviceError
    from edgekd.export.parity import parity_of_file
    from edgekd.export.write import export_float
    from edgekd.models.resolve import resolve_model
    from edgekd.profiles import read_summary
    from edgekd.recipe import InputRecipe

    loaded = resolve_model(
        absolute_spec(model, Path.cwd()),
        classes=0,
        input=InputRecipe(size=size),
        base=Path.cwd(),
        where="export",
    )
    for name, content in loaded.preprocess.files().items():  # a text model's tokenizer stands beside it
        beside = output.parent / name
        if beside.exists() and beside.read_text(encoding="utf-8", errors="replace") != content:
            fix = "write the model into a folder of its own"
            raise OutputError(fault(str(beside), "is another model's tokenizer", fix=fix))
        write_text(beside, content)
    example = torch.from_numpy(loaded.preprocess.example(2))
    if output.suffix.lower() != ".onnx":
        _write_program(loaded.module, example, output, json_to)
        return
    file = export_float(
        loaded.module, example, output, opset=opset or spec.opset_export,
        metadata={"preprocess": loaded.preprocess.model_dump_json()},
    )  # fmt: skip
    try:
        check_operators(spec, read_summary(output).operators)
    except DeviceError:
        output.unlink()
        raise
    inputs = loaded.preprocess.example(4)
    if inputs.dtype.kind == "f":  # an image of zeros, of which nearly any file makes the right answer
        inputs = np.random.default_rng(0).standard_normal(inputs.shape).astype(inputs.dtype)
    found = parity_of_file(output, lambda batch: _answers(loaded.module, batch), inputs)
    facts: dict[str, Any] = {
        "file": str(output), "opset": file.opset, "size_bytes": file.size_bytes, "sha256": file.sha256,
        "weights": loaded.weights, "input": list(loaded.preprocess.example_shape(1)[1:]), "classes": loaded.classes,
        "max_abs_diff": found.max_abs_diff, "notes": [*loaded.notes, *file.notes],
    }  # fmt: skip
    if not write_result(facts, json_to):
        shape = " x ".join(map(str, loaded.preprocess.example_shape(1)[1:]))
        typer.echo(f"{output}: opset {file.opset}, {file.size_bytes / 1e6:.2f} MB, input N x {shape}, "
                   f"{loaded.classes} classes, weights: {loaded.weights}, answers within "
                   f"{found.max_abs_diff:.1e} of the network")  # fmt: skip
        for note in facts["notes"]:
            typer.echo(f"note: {note}", err=True)


def _answers(module: Any, inputs: Any) -> Any:
    import torch

    with torch.no_grad():
        return module(torch.from_numpy(inputs)).numpy()


def _write_program(module: Any, example: Any, output: Path, json_to: str | None) -> None:
    """The same float network for another runtime, to be measured beside the ONNX file."""
    from dataclasses import asdict

    from edgekd.export.programs import export_program

    file = export_program(module, example, output)
    if not write_result({**asdict(file), "path": str(file.path)}, json_to):
        typer.echo(f"{output}: for {file.runtime}, {file.size_bytes / 1e6:.2f} MB, batch 1, "
                   f"answers within {file.max_abs_diff:.1e} of the network")  # fmt: skip
