"""Make torchvision importable beside a torch that its compiled operators do not fit.

A registry's torchvision is built for CUDA torch. On a CPU torch (and on Jetson's own wheels) its C++
operators do not load, and ``import torchvision``, hence timm and most of transformers, dies with
"operator torchvision::nms does not exist". The import only needs the operators' *schemas*, so they are
declared when they are missing. Everything that imports timm or transformers calls this first.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

_library: torch.library.Library | None = None  # kept alive: schemas vanish with the object
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def ensure_torchvision_ops() -> None:
    """Declare torchvision's operator schemas, once and only when its compiled library does not load."""
    global _library
    if _library is not None or _native_operators_load():
        return
    _library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        _library.define(schema)


def _native_operators_load() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True  # nothing to repair; the import will say what is missing
    if hasattr(torch.ops.torchvision, "nms"):
        return True
    for library in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            return False
    return hasattr(torch.ops.torchvision, "nms")
