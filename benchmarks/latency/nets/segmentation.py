"""Segmentation networks: torchvision's and transformers' own, Fast-SCNN and PIDNet after their papers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def find(model: str) -> tuple[str, Callable[[tuple[int, ...]], nn.Module]] | None:
    if model in ("fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101"):
        return f"torchvision {model}", lambda shape: _torchvision(model)
    if model == "segformer_b0":
        return "transformers SegformerConfig() as nvidia/segformer-b0, 35 classes", lambda shape: _segformer(
            35
        )
    if model == "fast_scnn":
        return "arXiv:1902.04502 table 1", lambda shape: FastScnn(19)
    if model == "pidnet_s":
        return "arXiv:2206.02066, PIDNet-S, 35 classes", lambda shape: PidNet(35)
    return None


def _torchvision(model: str) -> nn.Module:
    import torchvision

    class Output(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = torchvision.models.get_model(
                model, weights=None, weights_backbone=None, num_classes=21
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network(x)["out"]

    return Output()


def _segformer(classes: int) -> nn.Module:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    network = SegformerForSemanticSegmentation(
        SegformerConfig(num_labels=classes, attn_implementation="eager")
    )

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> Any:
            return self.network(pixel_values=x, return_dict=False)[0]

    return Logits()


def conv(
    before: int, after: int, kernel: int = 1, stride: int = 1, groups: int = 1, relu: bool = True
) -> nn.Module:
    layers = [
        nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(after),
    ]
    return nn.Sequential(*layers, *([nn.ReLU()] if relu else []))


def separable(before: int, after: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(conv(before, before, 3, stride, before), conv(before, after))


class _Inverted(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        inner = before * 6
        self.path = nn.Sequential(
            conv(before, inner), conv(inner, inner, 3, stride, inner), conv(inner, after, relu=False)
        )
        self.residual = stride == 1 and before == after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.path(x) if self.residual else self.path(x)


class _Pools(nn.Module):
    """Means over a grid of each size, brought back to the map's size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sides = (1, 2, 3, 6)
        self.branches = nn.ModuleList(conv(width, width // 4) for _ in self.sides)
        self.join = conv(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = [x]
        for side, branch in zip(self.sides, self.branches, strict=True):
            step = [max(1, size // side) for size in x.shape[2:]]
            pooled = branch(nn.functional.avg_pool2d(x, step, step))
            found.append(resized(pooled, x))
        return self.join(torch.cat(found, 1))


def resized(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    size = [int(value) for value in like.shape[2:]]
    return nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False)


class FastScnn(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.learn = nn.Sequential(conv(3, 32, 3, 2), separable(32, 48, 2), separable(48, 64, 2))
        rows = [(64, 64, 2), (64, 64, 1), (64, 64, 1), (64, 96, 2), (96, 96, 1), (96, 96, 1)]
        rows += [(96, 128, 1), (128, 128, 1), (128, 128, 1)]
        self.coarse = nn.Sequential(*(_Inverted(*row) for row in rows), _Pools(128))
        self.low = nn.Sequential(conv(128, 128, 3, 1, 128), conv(128, 128, relu=False))
        self.high = conv(64, 128, relu=False)
        self.head = nn.Sequential(separable(128, 128), separable(128, 128), nn.Conv2d(128, classes, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.learn(x)
        low = self.low(resized(self.coarse(fine), fine))
        return resized(self.head(torch.relu(low + self.high(fine))), x)


class _Basic(nn.Module):
    def __init__(self, before: int, after: int, stride: int = 1, *, last: bool = False) -> None:
        super().__init__()
        self.path = nn.Sequential(conv(before, after, 3, stride), conv(after, after, 3, relu=False))
        self.beside = (
            conv(before, after, 1, stride, relu=False) if stride > 1 or before != after else nn.Identity()
        )
        self.last = last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.path(x) + self.beside(x)
        return y if self.last else torch.relu(y)


class _Bottleneck(nn.Module):
    def __init__(self, before: int, width: int, stride: int = 1) -> None:
        super().__init__()
        after = 2 * width
        self.path = nn.Sequential(
            conv(before, width), conv(width, width, 3, stride), conv(width, after, relu=False)
        )
        self.beside = (
            conv(before, after, 1, stride, relu=False) if stride > 1 or before != after else nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.path(x) + self.beside(x)


def _stage(before: int, after: int, count: int, stride: int) -> nn.Module:
    rows = [_Basic(before, after, stride)]
    rows += [_Basic(after, after, last=position == count - 1) for position in range(1, count)]
    return nn.Sequential(*rows)


class _PixelGuided(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fine, self.coarse = conv(width, inner, relu=False), conv(width, inner, relu=False)

    def forward(self, fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        near = resized(self.coarse(coarse), fine)
        share = torch.sigmoid((self.fine(fine) * near).sum(1, keepdim=True))
        return (1 - share) * fine + share * resized(coarse, fine)


class _ParallelPools(nn.Module):
    """Four means of growing windows, one grouped convolution over all of them."""

    def __init__(self, before: int, inner: int, after: int) -> None:
        super().__init__()
        self.steps = ((5, 2), (9, 4), (17, 8), (0, 0))
        self.scales = nn.ModuleList(self._point(before, inner) for _ in range(5))
        self.process = self._grouped(inner * 4)
        self.join, self.beside = self._point(inner * 5, after), self._point(before, after)

    @staticmethod
    def _point(before: int, after: int) -> nn.Module:
        return nn.Sequential(nn.BatchNorm2d(before), nn.ReLU(), nn.Conv2d(before, after, 1, bias=False))

    @staticmethod
    def _grouped(width: int) -> nn.Module:
        layer = nn.Conv2d(width, width, 3, padding=1, groups=4, bias=False)
        return nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.scales[0](x)
        found = []
        for (kernel, step), scale in zip(self.steps, list(self.scales)[1:], strict=True):
            size = [kernel, kernel] if kernel else [int(value) for value in x.shape[2:]]
            pooled = nn.functional.avg_pool2d(x, size, step or size, kernel // 2)
            found.append(resized(scale(pooled), x) + first)
        return self.join(torch.cat([first, self.process(torch.cat(found, 1))], 1)) + self.beside(x)


class PidNet(nn.Module):
    def __init__(self, classes: int, width: int = 32) -> None:
        super().__init__()
        w = width
        self.stem = nn.Sequential(conv(3, w, 3, 2), conv(w, w, 3, 2), _stage(w, w, 2, 1), nn.ReLU())
        self.layer2 = nn.Sequential(_stage(w, 2 * w, 2, 2), nn.ReLU())
        self.layer3 = nn.Sequential(_stage(2 * w, 4 * w, 3, 2), nn.ReLU())
        self.layer4 = nn.Sequential(_stage(4 * w, 8 * w, 3, 2), nn.ReLU())
        self.layer5 = nn.Sequential(_Bottleneck(8 * w, 8 * w, 2), nn.ReLU(), _Bottleneck(16 * w, 8 * w))
        self.squeeze3, self.squeeze4 = conv(4 * w, 2 * w, relu=False), conv(8 * w, 2 * w, relu=False)
        self.guide3, self.guide4 = _PixelGuided(2 * w, w), _PixelGuided(2 * w, w)
        self.p3, self.p4, self.p5 = (
            _stage(2 * w, 2 * w, 2, 1),
            _stage(2 * w, 2 * w, 2, 1),
            _Bottleneck(2 * w, 2 * w),
        )
        self.d3, self.d4, self.d5 = _Basic(2 * w, w), _Bottleneck(w, w), _Bottleneck(2 * w, 2 * w)
        self.edge3, self.edge4 = conv(4 * w, w, 3, relu=False), conv(8 * w, 2 * w, 3, relu=False)
        self.pools = _ParallelPools(16 * w, 96, 4 * w)
        self.bag_p, self.bag_i = conv(4 * w, 4 * w, relu=False), conv(4 * w, 4 * w, relu=False)
        self.head = nn.Sequential(
            nn.BatchNorm2d(4 * w), nn.ReLU(), conv(4 * w, 128, 3), nn.Conv2d(128, classes, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        base = self.layer2(self.stem(x))
        detail, edge = self.p3(base), self.d3(base)
        context = self.layer3(base)
        detail = self.guide3(detail, self.squeeze3(context))
        edge = edge + resized(self.edge3(context), edge)
        context = self.layer4(context)
        detail, edge = self.p4(torch.relu(detail)), self.d4(torch.relu(edge))
        detail = self.guide4(detail, self.squeeze4(context))
        edge = edge + resized(self.edge4(context), edge)
        detail, edge = self.p5(torch.relu(detail)), self.d5(torch.relu(edge))
        context = resized(self.pools(self.layer5(context)), detail)
        share = torch.sigmoid(edge)
        joined = self.bag_p((1 - share) * context + detail) + self.bag_i(context + share * detail)
        return self.head(joined)
