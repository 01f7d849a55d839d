"""Small networks with stages."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Expands before it strides, so that its inside outlives the stage before it at that resolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(inputs, 3 * inputs, 1)
        self.conv = nn.Conv2d(3 * inputs, outputs, 3, stride, 1)
        self.norm = nn.BatchNorm2d(outputs)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(self.expand(x))))


class Staged(nn.Module):
    def __init__(self, width: int = 4, blocks: int = 1, prefix: str = "stage") -> None:
        super().__init__()
        self.names = [f"{prefix}{number}" for number in (1, 2, 3)]
        inputs = 1
        for name, outputs in zip(self.names, (width, 2 * width, 4 * width), strict=True):
            parts = [Block(inputs if i == 0 else outputs, outputs, 2 if i == 0 else 1) for i in range(blocks)]
            self.add_module(name, nn.Sequential(*parts))
            inputs = outputs
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.gate = nn.Conv2d(inputs, inputs, 1)
        self.head = nn.Linear(inputs, 5)

    def forward(self, x: Tensor) -> Tensor:
        for name in self.names:
            x = getattr(self, name)(x)
        return self.head(self.gate(self.pool(x)).flatten(1))


class Tokens(nn.Module):
    """Patches, a class token, and blocks of one resolution."""

    def __init__(self, depth: int, width: int = 6) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.Sequential(
            *[nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width)) for _ in range(depth)]
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), patches], dim=1)
        return self.head(self.norm(self.blocks(x))[:, 0])


class ChannelsLast(nn.Module):
    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, 4, 4)
        self.mix = nn.Linear(width, width)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.patch(x).permute(0, 2, 3, 1)).mean(dim=(1, 2)))


@pytest.fixture
def nets():
    torch.manual_seed(0)
    return {"staged": Staged, "tokens": Tokens, "channels_last": ChannelsLast}


@pytest.fixture
def image():
    return torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
