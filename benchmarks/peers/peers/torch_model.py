"""The job's model in torch, for peers that start from a module. Runs inside the peer's environment."""

from __future__ import annotations

from typing import Any

import torch
from job_io import Job

_library: Any = None


def load_model(job: Job) -> torch.nn.Module:
    """In eval mode, with the job's weights."""
    _declare_torchvision_operators()
    import timm
    from safetensors.torch import load_file

    model = (
        _from_file(job.timm)
        if job.timm.startswith("torch:")
        else timm.create_model(job.timm, pretrained=False)
    )
    model.load_state_dict(load_file(job.folder / "weights.safetensors"))
    return model.eval()


def _from_file(name: str) -> torch.nn.Module:
    """``torch:FILE:FUNCTION``."""
    import importlib.util

    path, function = name.removeprefix("torch:").rsplit(":", 1)
    spec = importlib.util.spec_from_file_location("job_model", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    built: torch.nn.Module = getattr(module, function)()
    return built


def samples(job: Job) -> list[torch.Tensor]:
    """The calibration set, one sample a batch."""
    return list(torch.from_numpy(job.calibration).split(1))


def _declare_torchvision_operators() -> None:
    """A registry's torchvision does not load its operators beside a CPU torch; its import needs their names."""
    global _library
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        import sys

        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            _library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
