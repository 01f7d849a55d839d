"""The folder that goes onto the board: model, labels, preprocessing, a script that uses them, a page to read.

``run.py`` is :mod:`edgekd.export.bundle_run`, copied as it is: it needs onnxruntime, numpy and Pillow alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import onnx

import edgekd
from edgekd.artifact import atomic_path, sha256_file, write_json, write_text
from edgekd.device import DeviceSpec
from edgekd.errors import ExportError, fault
from edgekd.export.trace import opset_of
from edgekd.export.weights import load_onnx
from edgekd.preprocess import Preprocess


def write_bundle(
    folder: Path,
    *,
    model_file: Path,
    classes: Sequence[str],
    preprocess: Preprocess,
    device: DeviceSpec,
    facts: Mapping[str, Any],
) -> list[Path]:
    """Write ``run.py``, ``labels.json``, ``README.md`` and last ``manifest.json`` beside ``model.onnx``.

    A model file that stands elsewhere is copied.

    Args:
        classes: in the order of the logits.
        facts: what the page shows, JSON values; ``scheme`` and ``pattern`` also stand in the manifest.

    Returns:
        Every file of the bundle, the model first.

    Raises:
        ExportError: classes or preprocessing do not fit the model's output and input.
        OutputError: the folder cannot be written.
    """
    proto = load_onnx(model_file)
    _check_fit(proto, model_file, classes, preprocess)
    model = folder / "model.onnx"
    if model_file.resolve() != model.resolve():
        with atomic_path(model) as temporary:
            shutil.copyfile(model_file, temporary)
    labels, script, page = folder / "labels.json", folder / "run.py", folder / "README.md"
    write_json(labels, list(classes))
    write_text(script, resources.files("edgekd.export").joinpath("bundle_run.py").read_text(encoding="utf-8"))
    write_text(page, _page(device, classes, preprocess, model, facts))
    manifest = folder / "manifest.json"
    write_json(
        manifest,
        {
            "schema": 1,
            "edgekd": edgekd.__version__,
            "device": {"name": device.name, "title": device.title},
            "runtime": device.runtime,
            "runtime_version": device.runtime_version,
            "opset": opset_of(proto),
            "model": {
                "file": model.name,
                "sha256": sha256_file(model),
                "size_bytes": model.stat().st_size,
                "input": proto.graph.input[0].name,
                "output": proto.graph.output[0].name,
            },
            "scheme": facts.get("scheme"),
            "pattern": facts.get("pattern"),
            "preprocess": preprocess.model_dump(mode="json"),
            "classes": len(classes),
            "files": {path.name: sha256_file(path) for path in (model, labels, script, page)},
            "facts": dict(facts),
        },
    )
    return [model, labels, script, page, manifest]


def _check_fit(proto: onnx.ModelProto, path: Path, classes: Sequence[str], preprocess: Preprocess) -> None:
    def sizes(value: onnx.ValueInfoProto) -> list[int]:
        return [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]

    wanted, given = sizes(proto.graph.output[0]), [len(classes)]
    if all(wanted) and wanted != given:
        raise ExportError(
            fault(str(path), "the labels do not fit the logits", got=given, allowed=str(wanted))
        )
    wanted, given = sizes(proto.graph.input[0]), list(preprocess.input_shape)
    if all(wanted) and wanted != given:
        raise ExportError(
            fault(str(path), "the preprocessing does not fit the input", got=given, allowed=str(wanted))
        )


def _page(
    device: DeviceSpec, classes: Sequence[str], preprocess: Preprocess, model: Path, facts: Mapping[str, Any]
) -> str:
    shape = "x".join(str(size) for size in (1, *preprocess.input_shape))
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts.items() if value is not None)
    return f"""# {model.name} for {device.title}

An image classifier with {len(classes)} classes, written by edgekd {edgekd.__version__}.

## Run it on the board

```
python3 -m pip install onnxruntime numpy Pillow
python3 run.py photo.jpg
```

Each line is: label, probability, file, separated by tabs. `--top 3` prints more labels, `--json` a JSON list,
`--threads {device.cores}` sets the threads.
{_tensorrt(shape, bool(facts.get("pattern"))) if device.runtime == "tensorrt" else ""}
## Use it in your own program

The input `input` is float32 (batch, {", ".join(str(size) for size in preprocess.input_shape)}), prepared as
`load_image` in `run.py` does; the output `logits` is float32 (batch, {len(classes)}), in the order of
`labels.json`. `manifest.json` holds the preprocessing, the checksums and how the file was made.

| fact | value |
| --- | --- |
{rows}
"""


def _tensorrt(shape: str, sparse: bool) -> str:
    flags = "--int8 --fp16" + (" --sparsity=enable" if sparse else "")
    return f"""
TensorRT builds its engine from the same file, on the board itself (not tried where this file was written):

```
trtexec --onnx=model.onnx {flags} --shapes=input:{shape} --saveEngine=model.plan
```

Where onnxruntime has its TensorRT provider, `run.py` uses it; else it falls back to the CPU.
"""
