"""YOLOX (Ge et al. 2021, arXiv:2107.08430): CSP backbone with a focus layer, a path aggregation neck, decoupled heads.

Depth and width of the sizes, and that ``nano`` has depthwise convolutions, are those of the paper's repository.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

_SIZES = {
    "yolox_nano": (0.33, 0.25), "yolox_tiny": (0.33, 0.375), "yolox_s": (0.33, 0.5),
    "yolox_m": (0.67, 0.75), "yolox_l": (1.0, 1.0), "yolox_s_leaky": (0.33, 0.5),
}  # fmt: skip


def find(model: str) -> tuple[str, Callable[[tuple[int, ...]], nn.Module]] | None:
    if model not in _SIZES:
        return None
    depth, width = _SIZES[model]
    act = nn.LeakyReLU if model.endswith("leaky") else nn.SiLU
    source = "arXiv:2107.08430, depth and width of github Megvii-BaseDetection/YOLOX exps/default"
    return source, lambda shape: YoloX(depth, width, depthwise=model == "yolox_nano", act=act)


class Layers:
    """Makes convolutions with batch norm and activation, dense or separable."""

    def __init__(self, act: Callable[[], nn.Module], *, depthwise: bool) -> None:
        self._act, self._depthwise = act, depthwise

    def conv(self, before: int, after: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Module:
        layer = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
        return nn.Sequential(layer, nn.BatchNorm2d(after), self._act())

    def wide(self, before: int, after: int, stride: int = 1) -> nn.Module:
        """3x3: separable in the smallest network."""
        if not self._depthwise:
            return self.conv(before, after, 3, stride)
        return nn.Sequential(self.conv(before, before, 3, stride, before), self.conv(before, after))

    def stage(self, before: int, after: int, count: int, *, residual: bool = True) -> nn.Module:
        return _Csp(self, before, after, count, residual)


class _Bottleneck(nn.Module):
    def __init__(self, make: Layers, width: int, residual: bool) -> None:
        super().__init__()
        self.path = nn.Sequential(make.conv(width, width), make.wide(width, width))
        self.residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.path(x)
        return x + y if self.residual else y


class _Csp(nn.Module):
    def __init__(self, make: Layers, before: int, after: int, count: int, residual: bool) -> None:
        super().__init__()
        half = after // 2
        self.left, self.right = make.conv(before, half), make.conv(before, half)
        self.blocks = nn.Sequential(*(_Bottleneck(make, half, residual) for _ in range(count)))
        self.join = make.conv(2 * half, after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.join(torch.cat([self.blocks(self.left(x)), self.right(x)], 1))


class _SpatialPyramid(nn.Module):
    def __init__(self, make: Layers, width: int) -> None:
        super().__init__()
        self.before, self.after = make.conv(width, width // 2), make.conv(width * 2, width)
        self.pools = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in (5, 9, 13))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.before(x)
        return self.after(torch.cat([x, *(pool(x) for pool in self.pools)], 1))


class _Head(nn.Module):
    def __init__(self, make: Layers, before: int, width: int, classes: int) -> None:
        super().__init__()
        self.stem = make.conv(before, width)
        self.scores = nn.Sequential(make.wide(width, width), make.wide(width, width))
        self.sides = nn.Sequential(make.wide(width, width), make.wide(width, width))
        self.classes, self.boxes = nn.Conv2d(width, classes, 1), nn.Conv2d(width, 4, 1)
        self.objects = nn.Conv2d(width, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        sides = self.sides(x)
        found = [self.boxes(sides), self.objects(sides).sigmoid(), self.classes(self.scores(x)).sigmoid()]
        return torch.cat(found, 1).flatten(2)


class YoloX(nn.Module):
    def __init__(
        self, depth: float, width: float, *, depthwise: bool, act: Callable[[], nn.Module], classes: int = 80
    ) -> None:
        super().__init__()
        make = Layers(act, depthwise=depthwise)
        base, count = int(64 * width), max(1, round(3 * depth))
        c3, c4, c5 = base * 4, base * 8, base * 16
        self.stem = make.conv(12, base, 3)
        self.dark2 = nn.Sequential(make.wide(base, base * 2, 2), make.stage(base * 2, base * 2, count))
        self.dark3 = nn.Sequential(make.wide(base * 2, c3, 2), make.stage(c3, c3, count * 3))
        self.dark4 = nn.Sequential(make.wide(c3, c4, 2), make.stage(c4, c4, count * 3))
        self.dark5 = nn.Sequential(
            make.wide(c4, c5, 2), _SpatialPyramid(make, c5), make.stage(c5, c5, count, residual=False)
        )
        self.lateral5, self.lateral4 = make.conv(c5, c4), make.conv(c4, c3)
        self.up4 = make.stage(2 * c4, c4, count, residual=False)
        self.up3 = make.stage(2 * c3, c3, count, residual=False)
        self.down3, self.down4 = make.wide(c3, c3, 2), make.wide(c4, c4, 2)
        self.out4 = make.stage(2 * c3, c4, count, residual=False)
        self.out5 = make.stage(2 * c4, c5, count, residual=False)
        self.heads = nn.ModuleList(_Head(make, size, int(256 * width), classes) for size in (c3, c4, c5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        corners = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        x3 = self.dark3(self.dark2(self.stem(torch.cat(corners, 1))))
        x4 = self.dark4(x3)
        top = self.lateral5(self.dark5(x4))
        middle = self.lateral4(self.up4(torch.cat([_double(top), x4], 1)))
        low = self.up3(torch.cat([_double(middle), x3], 1))
        mid = self.out4(torch.cat([self.down3(low), middle], 1))
        high = self.out5(torch.cat([self.down4(mid), top], 1))
        found = [head(values) for head, values in zip(self.heads, (low, mid, high), strict=True)]
        return torch.cat(found, 2).permute(0, 2, 1)


def _double(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
