"""The demo's two networks for 28x28 gray images: plain residual nets, as a user would write their own.

``torch:fashion_nets.py:teacher`` and ``torch:fashion_nets.py:student`` name them in a recipe.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

PREPROCESS = {
    "height": 28,
    "width": 28,
    "channels": 1,
    "mean": [0.2860],
    "std": [0.3530],
    "interpolation": "bilinear",
}


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)
    )


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al., "Deep Residual Learning", CVPR 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, 3, stride)
        self.second = convolution(outputs, outputs, 3)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class ResidualNet(nn.Module):
    """A stem, then stages of blocks; ``(batch, channels, 28, 28)`` to ``(batch, classes)``.

    Args:
        stem: channels of the first convolution, at full resolution.
        widths: channels of each stage.
        blocks: blocks of each stage.
        strides: of each stage's first block.
    """

    def __init__(
        self,
        stem: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        strides: Sequence[int],
        num_classes: int,
        in_chans: int,
    ) -> None:
        super().__init__()
        self.stem = convolution(in_chans, stem, 3)
        layers: list[nn.Module] = []
        inputs = stem
        for width, count, stride in zip(widths, blocks, strides, strict=True):
            for block in range(count):
                layers.append(Block(inputs, width, 1 if block else stride))
                inputs = width
        self.blocks = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.stem(x)))
        return self.head(self.pool(x).flatten(1))


def teacher(num_classes: int = 10, in_chans: int = 1) -> nn.Module:
    """58.7 M multiply-accumulates, 0.66 M parameters."""
    return ResidualNet(24, (24, 64, 128), (1, 2, 2), (1, 2, 2), num_classes, in_chans)


def student(num_classes: int = 10, in_chans: int = 1) -> nn.Module:
    """5.6 M multiply-accumulates, 0.19 M parameters: it halves the resolution at once."""
    return ResidualNet(12, (24, 48, 104), (1, 1, 1), (2, 2, 2), num_classes, in_chans)
