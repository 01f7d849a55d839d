"""Small nets of SiLU, GELU and HardSwish for 28x28 gray images: timm's own blocks, thinner.

``torch:exchange_nets.py:efficientnet`` and so on name them in a recipe.
"""

from __future__ import annotations

from torch import nn

from edgekd.models.torchvision_shim import ensure_torchvision_ops
from edgekd.recipes.fashion_nets import PREPROCESS

__all__ = ["PREPROCESS", "convnext", "efficientnet", "mobilenetv3"]


def efficientnet(num_classes: int = 10, in_chans: int = 1) -> nn.Module:
    """SiLU: EfficientNet-B0 at half width with one block a stage; 25 of them."""
    ensure_torchvision_ops()
    from timm.models.efficientnet import _gen_efficientnet

    return _gen_efficientnet(
        "efficientnet_b0", channel_multiplier=0.5, depth_multiplier=0.3, num_classes=num_classes, in_chans=in_chans
    )  # fmt: skip


def convnext(num_classes: int = 10, in_chans: int = 1) -> nn.Module:
    """GELU: ConvNeXt of six blocks at 14, 7, 3 and 1 pixels, its first convolution 2x2."""
    ensure_torchvision_ops()
    from timm.models.convnext import ConvNeXt

    net = ConvNeXt(
        in_chans=in_chans, num_classes=num_classes, depths=(1, 2, 2, 1), dims=(24, 48, 96, 128), patch_size=2
    )
    net.stages[0].downsample = nn.Identity()
    return net


def mobilenetv3(num_classes: int = 10, in_chans: int = 1) -> nn.Module:
    """HardSwish: MobileNetV3-Small at half width as published, but for a first convolution without stride."""
    ensure_torchvision_ops()
    import timm

    net = timm.create_model("mobilenetv3_small_050", num_classes=num_classes, in_chans=in_chans)
    net.conv_stem.stride = (1, 1)
    return net
