"""A resnet18 and a mobilenetv2 for 28x28 gray images: the published block structures, smaller strides in front.

``torch:pruning_nets.py:resnet18`` and ``torch:pruning_nets.py:mobilenetv2`` name them in a recipe.
"""

from __future__ import annotations

from torch import nn

from edgekd.models.torchvision_shim import ensure_torchvision_ops
from edgekd.recipes.fashion_nets import PREPROCESS

__all__ = ["PREPROCESS", "mobilenetv2", "resnet18"]


def resnet18(num_classes: int = 10, in_chans: int = 1) -> nn.Module:
    """Four stages of two basic blocks at 14, 7, 4 and 2 pixels, three quarters of the width: 71 M MACs."""
    ensure_torchvision_ops()
    from timm.models.resnet import BasicBlock, ResNet

    net = ResNet(
        BasicBlock, (2, 2, 2, 2), num_classes=num_classes, in_chans=in_chans, channels=(48, 96, 192, 384)
    )
    net.conv1 = nn.Conv2d(in_chans, 64, 3, stride=2, padding=1, bias=False)
    net.maxpool = nn.Identity()
    return net


def mobilenetv2(num_classes: int = 10, in_chans: int = 1) -> nn.Module:
    """Inverted residuals at width 1.4 as published, but for a first convolution without stride: 42 M MACs."""
    ensure_torchvision_ops()
    import timm

    net = timm.create_model("mobilenetv2_140", num_classes=num_classes, in_chans=in_chans)
    net.conv_stem.stride = (1, 1)
    return net
