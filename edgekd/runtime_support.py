"""What the CPU runtimes can do on a core with these instruction-set flags."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from edgekd.device_parts import ArmLevel, RuntimeSupport

_MLAS = "kernels by instruction set: github microsoft/onnxruntime onnxruntime/core/mlas"
_XNNPACK = "kernels by instruction set: github google/XNNPACK src/configs"
_NCNN = "kernels by instruction set: github Tencent/ncnn src/layer"
_CONVERT = "reads its own format: convert first"


def arm_level(flags: Set[str], source: str) -> ArmLevel | None:
    """The Arm architecture that Linux's flags tell; None where there are no Arm flags.

    ``fphp`` is fp16 arithmetic and ``asimddp`` the dot product; both came with 8.2.
    """
    if "asimd" not in flags:
        return None
    facts: dict[str, Any] = {
        "dotprod": "asimddp" in flags,
        "fp16": "asimdhp" in flags,
        "i8mm": "i8mm" in flags,
    }
    marks = (
        ("sve2", "9.0-A"),
        ("i8mm", "8.6-A"),
        ("asimdhp", "8.2-A"),
        ("asimddp", "8.2-A"),
        ("atomics", "8.1-A"),
    )
    level = next((level for mark, level in marks if mark in flags), "8.0-A")
    return ArmLevel.model_validate({"level": level, **facts, "source": source})


def cpu_runtimes(arch: str, flags: Set[str], version: str, opset_max: int) -> tuple[RuntimeSupport, ...]:
    """ONNX Runtime of this version, TFLite and ncnn on such a core."""
    if arch == "x86_64":
        dot, fp16 = bool({"avx512_vnni", "avx_vnni"} & flags), False
        int8 = "dot-product" if dot else "saturating"
    else:
        dot, fp16 = "asimddp" in flags, "asimdhp" in flags
        int8 = "dot-product" if dot else "widening"
    # No CPU runtime here has 2:4 kernels.
    common = {"int8": int8, "fp16": fp16}
    rows = (
        {"name": "onnxruntime", "version": version or None, "opset_min": 7, "opset_max": opset_max,
         "note": "fp16 kernels for convolution and matrix product alone" if fp16 else "fp16 files are computed in fp32",
         "source": _MLAS},
        {"name": "tflite", "note": _CONVERT, "source": _XNNPACK},
        {"name": "ncnn", "note": _CONVERT, "source": _NCNN},
    )  # fmt: skip
    return tuple(RuntimeSupport.model_validate({**common, **row}) for row in rows)
