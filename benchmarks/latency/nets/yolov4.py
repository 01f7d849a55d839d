"""YOLOv4 (Bochkovskiy et al. 2020, arXiv:2004.10934): CSPDarknet53, spatial pyramid, path aggregation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def find(model: str) -> tuple[str, Callable[[tuple[int, ...]], nn.Module]] | None:
    if model != "yolov4":
        return None
    return "arXiv:2004.10934, layers of github AlexeyAB/darknet cfg/yolov4.cfg", lambda shape: YoloV4()


def _mish(before: int, after: int, kernel: int = 1, stride: int = 1) -> nn.Module:
    layer = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.Mish())


def _leaky(before: int, after: int, kernel: int = 1, stride: int = 1) -> nn.Module:
    layer = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.LeakyReLU(0.1))


class _Residual(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.path = nn.Sequential(_mish(width, inner), _mish(inner, width, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.path(x)


class _Stage(nn.Module):
    """Halves the map; only the first stage keeps its full width inside."""

    def __init__(self, before: int, after: int, count: int) -> None:
        super().__init__()
        inner = after if count == 1 else after // 2
        self.down = _mish(before, after, 3, 2)
        self.beside, self.into = _mish(after, inner), _mish(after, inner)
        self.blocks = nn.Sequential(
            *(_Residual(inner, before if count == 1 else inner) for _ in range(count)), _mish(inner, inner)
        )
        self.join = _mish(2 * inner, after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.down(x)
        return self.join(torch.cat([self.blocks(self.into(x)), self.beside(x)], 1))


def _five(before: int, width: int) -> nn.Module:
    """1x1 and 3x3 in turn."""
    return nn.Sequential(
        _leaky(before, width), _leaky(width, 2 * width, 3), _leaky(2 * width, width),
        _leaky(width, 2 * width, 3), _leaky(2 * width, width),
    )  # fmt: skip


class YoloV4(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_mish(3, 32, 3), _Stage(32, 64, 1), _Stage(64, 128, 2))
        self.stage3, self.stage4, self.stage5 = _Stage(128, 256, 8), _Stage(256, 512, 8), _Stage(512, 1024, 4)
        self.before = nn.Sequential(_leaky(1024, 512), _leaky(512, 1024, 3), _leaky(1024, 512))
        self.pools = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in (5, 9, 13))
        self.after = nn.Sequential(_leaky(2048, 512), _leaky(512, 1024, 3), _leaky(1024, 512))
        self.up5, self.side4, self.join4 = _leaky(512, 256), _leaky(512, 256), _five(512, 256)
        self.up4, self.side3, self.join3 = _leaky(256, 128), _leaky(256, 128), _five(256, 128)
        self.down3, self.out4 = _leaky(128, 256, 3, 2), _five(512, 256)
        self.down4, self.out5 = _leaky(256, 512, 3, 2), _five(1024, 512)
        self.heads = nn.ModuleList(
            nn.Sequential(_leaky(width, 2 * width, 3), nn.Conv2d(2 * width, 255, 1))
            for width in (128, 256, 512)
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x3 = self.stage3(self.stem(x))
        x4 = self.stage4(x3)
        top = self.before(self.stage5(x4))
        top = self.after(torch.cat([*(pool(top) for pool in self.pools), top], 1))
        middle = self.join4(torch.cat([self.side4(x4), _double(self.up5(top))], 1))
        low = self.join3(torch.cat([self.side3(x3), _double(self.up4(middle))], 1))
        mid = self.out4(torch.cat([self.down3(low), middle], 1))
        high = self.out5(torch.cat([self.down4(mid), top], 1))
        return tuple(head(values) for head, values in zip(self.heads, (low, mid, high), strict=True))


def _double(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
