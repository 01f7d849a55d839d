"""LiteRT (TensorFlow Lite): reads ``.tflite``. Its CPU kernels are XNNPACK's, switched on by default."""

from __future__ import annotations

from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.profiles.inputs import random_inputs
from edgekd.profiles.runner import RunSettings
from edgekd.profiles.runtimes.loaded import Call, Loaded, declared, needed

_MODULE, _EXTRA = "ai_edge_litert.interpreter", "litert"
_PRECISIONS = {"int8": "int8", "uint8": "int8", "float16": "fp16", "float32": "fp32"}


def version() -> str:
    needed(_MODULE, _EXTRA)
    return metadata.version("ai-edge-litert")


def load(path: Path, settings: RunSettings) -> Loaded:
    """One interpreter for each stream: an interpreter must not be called from two threads at once."""
    interpreter = _interpreter(path, settings)
    details = interpreter.get_input_details()
    # shape_signature has -1 where shape has 1 for the time being
    feeds = random_inputs(
        [
            declared(entry["name"], np.dtype(entry["dtype"]), list(map(int, entry["shape_signature"])))
            for entry in details
        ],
        batch=settings.batch,
        shape=settings.shape,
        seed=settings.seed,
    )

    def prepare(fresh: Any) -> Call:
        for entry in fresh.get_input_details():
            fresh.resize_tensor_input(entry["index"], feeds[entry["name"]].shape)
        fresh.allocate_tensors()
        for entry in fresh.get_input_details():
            fresh.set_tensor(entry["index"], feeds[entry["name"]])
        call: Call = fresh.invoke
        return call

    return Loaded(
        prepare(interpreter),
        {name: list(values.shape) for name, values in feeds.items()},
        precision=_precision(interpreter),
        stream=lambda: prepare(_interpreter(path, settings)),
    )


def _interpreter(path: Path, settings: RunSettings) -> Any:
    return needed(_MODULE, _EXTRA).Interpreter(model_path=str(path), num_threads=settings.threads)


def _precision(interpreter: Any) -> str:
    """Of most elements of all tensors."""
    elements: Counter[str] = Counter()
    for entry in interpreter.get_tensor_details():
        elements[np.dtype(entry["dtype"]).name] += int(np.prod(entry["shape"], dtype=np.int64))
    known = [name for name, _ in elements.most_common() if name in _PRECISIONS]
    return _PRECISIONS[known[0]] if known else "unknown"
