"""What a short device file leaves out: the usual runtime of its kind of processor, and what that takes.

Name, architecture, number of cores and the facts are the board's own; a file with those is a device. What is
filled in is the cautious choice: opsets that every release in use loads, integers that do not overflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ONNXRUNTIME = {"runtime_version": "1.20", "opset_min": 7, "opset_max": 21, "opset_export": 20}
_TENSORRT = {"runtime_version": "10.3", "opset_min": 9, "opset_max": 20, "opset_export": 17, "scheme": "s8s8"}
_AMPERE_AND_NEWER = ("ampere", "ada", "hopper", "blackwell")
# Two 8-bit products are added in 16 bits on an x86 without VNNI: seven-bit weights cannot overflow there.
_WIDE_SUMS = ("vnni", "amx")


def filled(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with every optional key; keys that are written stay as they are.

    An NVIDIA GPU among the facts (``gpu_arch``, ``cuda_cores``) makes TensorRT the runtime, else it is ONNX Runtime.
    """
    facts = _facts(document.get("facts"))
    graphics = str(facts.get("gpu_arch", "")).lower()
    arch = document.get("arch")
    runtime = document.get("runtime", "tensorrt" if graphics or "cuda_cores" in facts else "onnxruntime")
    found: dict[str, Any] = {
        "title": document.get("name"),
        "runtime": runtime,
        "scheme": "u8s8" if arch != "x86_64" or _has_wide_sums(facts) else "u8s8-reduce-range",
        "kernel_rule": "x86" if arch == "x86_64" else "arm",
        "int8": True,
        "sparse_2to4": runtime == "tensorrt" and graphics.startswith(_AMPERE_AND_NEWER),
        **(_TENSORRT if runtime == "tensorrt" else _ONNXRUNTIME),
    }
    found |= document
    if "opset_export" not in document and isinstance(found["opset_max"], int):
        found["opset_export"] = min(found["opset_export"], found["opset_max"])
    return found


def filled_keys(document: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`filled` adds to ``document``."""
    return {key: value for key, value in filled(document).items() if key not in document}


def _facts(written: Any) -> dict[str, Any]:
    if not isinstance(written, list | tuple):
        return {}
    return {
        str(fact["key"]): fact.get("value") for fact in written if isinstance(fact, Mapping) and "key" in fact
    }


def _has_wide_sums(facts: Mapping[str, Any]) -> bool:
    told = " ".join(str(facts.get(key, "")) for key in ("cpu_flags", "cpu_isa", "cpu_core", "cpu_features"))
    return any(name in told.lower() for name in _WIDE_SUMS)
