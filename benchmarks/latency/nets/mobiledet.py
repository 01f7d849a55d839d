"""Backbones of MobileDet (Xiong et al. 2020, arXiv:2004.14525), layer by layer as searched.

Each row: kind, output channels, expansion (or the two ranks of a Tucker convolution), kernel, stride, residual.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_CPU: list[tuple[Any, ...]] = [
    ("ibn", 16, 4, 3, 2, False),
    ("ibn", 32, 8, 3, 2, False), *[("ibn", 32, 4, 3, 1, True)] * 3,
    ("ibn", 72, 8, 5, 2, False), ("ibn", 72, 8, 3, 1, True), ("ibn", 72, 4, 5, 1, True), ("ibn", 72, 4, 3, 1, True),
    ("ibn", 72, 8, 3, 1, False), *[("ibn", 72, 8, 3, 1, True)] * 3, "C4",
    ("ibn", 104, 8, 5, 2, False), *[("ibn", 104, 4, 5, 1, True)] * 2, ("ibn", 104, 4, 3, 1, True),
    ("ibn", 144, 8, 3, 1, False), "C5",
]  # fmt: skip
_EDGETPU: list[Any] = [
    ("tucker", 16, (0.25, 0.75), 3, 1, False),
    ("fused", 16, 8, 3, 2, False), ("fused", 16, 4, 3, 1, True),
    ("fused", 16, 8, 3, 1, True), ("fused", 16, 4, 3, 1, True),
    ("fused", 40, 8, 5, 2, False), *[("fused", 40, 4, 3, 1, True)] * 3,
    ("ibn", 72, 8, 3, 2, False), ("ibn", 72, 8, 3, 1, True), *[("fused", 72, 4, 3, 1, True)] * 2,
    ("ibn", 96, 8, 5, 1, False), ("ibn", 96, 8, 5, 1, True), *[("ibn", 96, 8, 3, 1, True)] * 2, "C4",
    ("ibn", 120, 8, 5, 2, False), ("ibn", 120, 8, 3, 1, True), ("ibn", 120, 4, 5, 1, True), ("ibn", 120, 8, 3, 1, True),
    ("ibn", 384, 8, 5, 1, False), "C5",
]  # fmt: skip


def cpu() -> nn.Module:
    """HardSwish and squeeze-excite throughout; the first block does not expand."""
    return Backbone(16, ("ibn", 8, 1, 3, 1, False), _CPU, nn.Hardswish, squeeze=True)


def edgetpu() -> nn.Module:
    return Backbone(32, None, _EDGETPU, nn.ReLU6, squeeze=False)


class Backbone(nn.Module):
    """Gives the maps named C4 and C5."""

    def __init__(
        self, stem: int, first: Any, rows: list[Any], act: type[nn.Module], *, squeeze: bool
    ) -> None:
        super().__init__()
        self.stem = _conv(3, stem, 3, 2, act=act)
        blocks, self.taps, width = [], [], stem
        for row in [*([first] if first else []), *rows]:
            if isinstance(row, str):
                self.taps.append(len(blocks) - 1)
                continue
            blocks.append(_Block(width, row, act, squeeze))
            width = row[1]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.stem(x)
        found = []
        for position, block in enumerate(self.blocks):
            x = block(x)
            if position in self.taps:
                found.append(x)
        return found


class _Block(nn.Module):
    def __init__(self, before: int, row: tuple[Any, ...], act: type[nn.Module], squeeze: bool) -> None:
        super().__init__()
        kind, after, ratio, kernel, stride, self.residual = row
        layers: list[nn.Module] = []
        if kind == "tucker":
            ranks = [
                max(8, round(width * share / 8) * 8)
                for width, share in zip((before, after), ratio, strict=True)
            ]
            layers += [_conv(before, ranks[0], act=act), _conv(ranks[0], ranks[1], kernel, stride, act=act)]
            inner = ranks[1]
        elif kind == "fused":
            inner = before * ratio
            layers.append(_conv(before, inner, kernel, stride, act=act))
        else:
            inner = before * ratio
            if ratio > 1:
                layers.append(_conv(before, inner, act=act))
            layers.append(_conv(inner, inner, kernel, stride, inner, act=act))
            if squeeze:
                layers.append(_Squeeze(inner, act))
        layers += [nn.Conv2d(inner, after, 1, bias=False), nn.BatchNorm2d(after)]
        self.path = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.path(x) if self.residual else self.path(x)


class _Squeeze(nn.Module):
    def __init__(self, width: int, act: type[nn.Module]) -> None:
        super().__init__()
        inner = max(8, round(width / 4 / 8) * 8)
        self.path = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, inner, 1),
            act(),
            nn.Conv2d(inner, width, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.path(x)


def _conv(
    before: int, after: int, kernel: int = 1, stride: int = 1, groups: int = 1, *, act: type[nn.Module]
) -> nn.Module:
    layer = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after), act())
