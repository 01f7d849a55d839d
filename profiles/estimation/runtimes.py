"""Runtimes as the latency model tells them apart: names, number formats they compute in, how they share out work."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import DeviceError, fault, nearest
from edgekd.profiles.estimation.core_kinds import CoreKind
from edgekd.profiles.estimation.op_table import OpTable
from edgekd.profiles.estimation.operators import FAMILIES

Kinds = NDArray[np.str_]
PRECISIONS = ("fp32", "fp16", "int8")

_WEIGHTED = "conv-dense-3x3 conv-1x1 conv-dense-other conv-depthwise conv-grouped conv-first deconv gemm matmul-tokens"
_MOVED = "elementwise pool global-pool resize concat copy transpose reshape"


@dataclass(frozen=True)
class RuntimeKind:
    """Attributes:
    name: as users say it, or a build of it (``tflite-ruy``).
    chain: the fitted parameters that hold for it, the broadest first.
    int8: families it has 8-bit kernels for.
    fp16: computes in fp16 where the cores can; otherwise fp16 is storage.
    static: deals work out in equal parts, whatever the cores.
    grain: multiply-accumulates (or elements moved) for each further thread; 0: all threads, whatever there is to do.
    half_weights: families whose floating-point weights are stored in fp16 on cores that convert them as they load.
    public: one of the names that users give; others are builds whose rows were published.
    """

    name: str
    chain: tuple[str, ...]
    int8: frozenset[str]
    fp16: bool = False
    static: bool = False
    grain: int = 0
    gpu: bool = False
    half_weights: frozenset[str] = frozenset()
    public: bool = False


def _families(words: str) -> frozenset[str]:
    return frozenset(words.split())


_TFLITE = _families(f"{_WEIGHTED} {_MOVED} attention softmax activation-expensive quantize")
_ORT = _families(f"{_WEIGHTED} {_MOVED} activation-expensive softmax")
_EVERY = frozenset(FAMILIES)
_KINDS = (
    # 64 x 1024: MLAS_SGEMM_THREAD_COMPLEXITY in github microsoft/onnxruntime onnxruntime/core/mlas/lib/mlasi.h
    RuntimeKind("onnxruntime", ("onnxruntime",), _ORT, grain=65536, public=True),
    # create_pipeline_fp16s in github Tencent/ncnn src/layer/{x86,arm}/innerproduct_*.cpp@a4d2ea1d
    RuntimeKind(
        "ncnn",
        ("ncnn",),
        _families(_WEIGHTED),
        fp16=True,
        static=True,
        half_weights=_families("gemm"),
        public=True,
    ),
    # Of the builds that were published, ruy's lies in the middle: what to expect of "TFLite" without a build.
    RuntimeKind("tflite", ("tflite", "tflite-ruy"), _TFLITE, public=True),
    RuntimeKind("tflite-unstated", ("tflite",), _TFLITE),
    RuntimeKind("tflite-xnnpack", ("tflite", "tflite-xnnpack"), _TFLITE),
    RuntimeKind("tflite-ruy", ("tflite", "tflite-ruy"), _TFLITE),
    RuntimeKind("armnn", ("armnn",), _TFLITE),
    RuntimeKind("openvino", ("openvino",), _ORT),
    RuntimeKind("tnn", ("tnn",), _families(_WEIGHTED), fp16=True, static=True),
    RuntimeKind("mnn", ("mnn",), _families(_WEIGHTED), fp16=True),
    RuntimeKind("tensorrt", ("tensorrt",), _EVERY, fp16=True, gpu=True, public=True),
    RuntimeKind("onnxruntime-tensorrt", ("tensorrt", "onnxruntime-tensorrt"), _EVERY, fp16=True, gpu=True),
    RuntimeKind("onnxruntime-cuda", ("onnxruntime-cuda",), _families(""), fp16=True, gpu=True),
)
# As published tables spell them.
_ALIASES = {
    "ort": "onnxruntime", "onnx": "onnxruntime", "onnx runtime": "onnxruntime", "trt": "tensorrt",
    "tflite(ruy)": "tflite-ruy", "tflite+xnnpack": "tflite-xnnpack", "litert": "tflite-xnnpack",
    "executorch": "tflite-xnnpack", "executorch+xnnpack": "tflite-xnnpack",
    "xnnpack end2end-bench": "tflite-xnnpack", "armnn(neon)": "armnn",
    "onnxruntime+cuda ep": "onnxruntime-cuda", "onnxruntime+tensorrt ep": "onnxruntime-tensorrt",
}  # fmt: skip


def runtime_kind(name: str) -> RuntimeKind:
    """The runtime behind a name, in any case and in the published tables' spelling.

    Raises:
        DeviceError: an unknown runtime; one line with those that are allowed.
    """
    text = _ALIASES.get(name.strip().lower(), name.strip().lower())
    known = {kind.name: kind for kind in _KINDS}
    if text not in known:
        public = [kind.name for kind in _KINDS if kind.public]
        fix = nearest(text, public)
        raise DeviceError(
            fault("runtime", "cannot be estimated", got=name, allowed=", ".join(public), fix=fix)
        )
    return known[text]


def computed(precision: str, kind: CoreKind, runtime: RuntimeKind) -> str:
    """What a processor's arithmetic is in: fp16 may be storage only, and so are weights of few bits."""
    half = runtime.fp16 and kind.flop16 > 0
    return "fp32" if precision.endswith(" weights") or (precision == "fp16" and not half) else precision


def precisions(table: OpTable, kind: CoreKind, runtime: RuntimeKind, precision: str) -> Kinds:
    """What each operator computes in on a processor: the file's integers, or all that the runtime could have."""
    half = computed("fp16", kind, runtime) == "fp16"
    floating = "fp16" if half and precision in ("fp16", "int8") else "fp32"
    kinds = np.full(table.size, floating, dtype="<U4")
    if precision == "int8":
        kinds[covered(table, runtime)] = "int8"
    return kinds


def covered(table: OpTable, runtime: RuntimeKind) -> NDArray[np.bool_]:
    """Operators that run in integers: those that the file says, or, of a float file, all that can."""
    able = np.isin(table.family, [FAMILIES.index(name) for name in runtime.int8])
    return np.asarray(able & table.integer) if table.integer.any() else able
