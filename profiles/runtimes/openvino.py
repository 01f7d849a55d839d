"""The OpenVINO package on the CPU: reads the same ONNX file, or its own ``.xml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekd.profiles.inputs import random_inputs, stated_limits
from edgekd.profiles.onnx_file import read_summary
from edgekd.profiles.runner import RunSettings
from edgekd.profiles.runtimes.loaded import Call, Loaded, declared, needed

_EXTRA = "openvino"


def version() -> str:
    return str(needed("openvino", _EXTRA).__version__).split("-")[0]


def load(path: Path, settings: RunSettings) -> Loaded:
    """Read, fix the shapes, compile.

    fp32 stays fp32: on processors with bfloat16 OpenVINO would compute in that, and a comparison of runtimes
    would compare types (docs.openvino.ai, "Precision Control").
    """
    ov = needed("openvino", _EXTRA)
    core = ov.Core()
    model = core.read_model(str(path))
    feeds = random_inputs(
        [_declared(port) for port in model.inputs],
        batch=settings.batch,
        shape=settings.shape,
        seed=settings.seed,
        text=stated_limits(read_summary(path).metadata) if path.suffix == ".onnx" else None,
    )
    if any(port.partial_shape.is_dynamic for port in model.inputs):
        model.reshape({name: list(values.shape) for name, values in feeds.items()})
    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": settings.threads * settings.streams,
        "NUM_STREAMS": settings.streams,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = core.compile_model(model, "CPU", options)

    def stream() -> Call:
        request = compiled.create_infer_request()
        for name, values in feeds.items():
            request.set_tensor(name, ov.Tensor(values, shared_memory=True))
        return lambda: request.infer(share_outputs=True)

    return Loaded(stream(), {name: list(values.shape) for name, values in feeds.items()}, stream=stream)


def _declared(port: Any) -> Any:
    dims = [dim.get_length() if dim.is_static else None for dim in port.partial_shape]
    return declared(port.any_name, port.element_type.to_dtype(), dims)
