"""The folder that goes onto the board: model, labels, preprocessing, a script that uses them, a page to read.

``run.py`` is :mod:`edgekd.export.bundle_run` (onnxruntime, numpy and Pillow alone) or, for texts,
:mod:`edgekd.export.bundle_run_text` (tokenizers instead of Pillow) with ``tokenizer.json``, copied as it is.
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
from edgekd.export.bundle_page import write_page
from edgekd.export.trace import opset_of
from edgekd.export.weights import load_onnx
from edgekd.preprocess_text import AnyPreprocess, TextPreprocess


def write_bundle(
    folder: Path,
    *,
    model_file: Path,
    classes: Sequence[str],
    preprocess: AnyPreprocess,
    device: DeviceSpec,
    facts: Mapping[str, Any],
    several: bool = False,
    pairs: bool = False,
) -> list[Path]:
    """Write ``run.py``, ``labels.json``, ``README.md`` and last ``manifest.json`` beside ``model.onnx``.

    A model file that stands elsewhere is copied.

    Args:
        classes: in the order of the logits.
        facts: what the page shows, JSON values; ``scheme`` and ``pattern`` also stand in the manifest.
        several: a sample may have several labels.
        pairs: a sample is two texts.

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
    text = isinstance(preprocess, TextPreprocess)
    source = resources.files("edgekd.export").joinpath("bundle_run_text.py" if text else "bundle_run.py")
    write_text(script, source.read_text(encoding="utf-8"))
    beside = [folder / name for name in preprocess.files()]
    for path, content in zip(beside, preprocess.files().values(), strict=True):
        write_text(path, content)
    write_text(page, write_page(device, classes, preprocess, model.name, facts, pairs=pairs))
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
            "several_labels": several,
            "pairs": pairs,
            "files": {path.name: sha256_file(path) for path in (model, labels, script, page, *beside)},
            "facts": dict(facts),
        },
    )
    return [model, labels, script, page, *beside, manifest]


def _check_fit(proto: onnx.ModelProto, path: Path, classes: Sequence[str], preprocess: AnyPreprocess) -> None:
    def sizes(value: onnx.ValueInfoProto) -> list[int]:
        return [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]

    wanted, given = sizes(proto.graph.output[0]), [len(classes)]
    if all(wanted) and wanted != given:
        raise ExportError(
            fault(str(path), "the labels do not fit the logits", got=given, allowed=str(wanted))
        )
    wanted, given = sizes(proto.graph.input[0]), list(preprocess.example_shape(1)[1:])
    if all(wanted) and wanted != given:
        raise ExportError(
            fault(str(path), "the preprocessing does not fit the input", got=given, allowed=str(wanted))
        )
