"""Execution providers of ONNX Runtime: short names, their options, and whether the installed build has them.

ONNX Runtime falls back to the CPU without a word when a provider's libraries are missing; here it is an error,
since a latency of the wrong provider is worse than none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edgekd.errors import MissingDependencyError, UserInputError, fault, nearest

# onnxruntime.ai/docs/execution-providers: names as `get_available_providers()` spells them.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
_PACKAGES = {
    "xnnpack": "build ONNX Runtime with --use_xnnpack: no wheel on PyPI has it",
    "cuda": "run: pip install onnxruntime-gpu (on a Jetson the wheel of its JetPack)",
    "tensorrt": "run: pip install onnxruntime-gpu (on a Jetson the wheel of its JetPack)",
    "openvino": "run: pip install onnxruntime-openvino, or measure with the runtime openvino",
}


def check_provider(name: str, ort: Any) -> None:
    """Raise unless the installed build has the provider.

    Raises:
        UserInputError: no such provider.
        MissingDependencyError: this build lacks it; the line says what it has.
    """
    if name not in PROVIDERS:
        raise UserInputError(fault("provider", "unknown", got=name, fix=nearest(name, PROVIDERS)))
    available = ort.get_available_providers()
    if PROVIDERS[name] not in available:
        raise MissingDependencyError(
            fault(f"provider {name!r}", f"the installed ONNX Runtime {ort.__version__} lacks it",
                  allowed=", ".join(name for name in PROVIDERS if PROVIDERS[name] in available), fix=_PACKAGES[name])
        )  # fmt: skip


def provider_arguments(name: str, *, threads: int) -> list[Any]:
    """``providers=`` of ``InferenceSession``; the CPU comes last, for what the provider does not take."""
    options: dict[str, str] = {}
    if name == "xnnpack":
        options = {"intra_op_num_threads": str(threads)}
    elif name == "openvino":
        options = {"device_type": "CPU", "precision": "FP32", "num_of_threads": str(threads)}
    chosen: list[Any] = [(PROVIDERS[name], options) if options else PROVIDERS[name]]
    return chosen if name == "cpu" else [*chosen, PROVIDERS["cpu"]]


def check_used(name: str, used: Iterable[str]) -> None:
    """Raise when a session that asked for ``name`` got ``used``, another.

    Raises:
        MissingDependencyError: the provider's own libraries did not load.
    """
    if PROVIDERS[name] not in used:
        raise MissingDependencyError(
            fault(f"provider {name!r}", "ONNX Runtime could not load it and fell back",
                  got=", ".join(short_names(used)), fix="install the libraries that it needs, such as CUDA and cuDNN")
        )  # fmt: skip


def short_names(names: Iterable[str]) -> list[str]:
    """ONNX Runtime's names as they are asked for here; what has no short name stays."""
    short = {full: name for name, full in PROVIDERS.items()}
    return [short.get(name, name) for name in names]
