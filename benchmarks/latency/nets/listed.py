"""YOLO networks that are listed as ``[from, number, module, arguments]`` in a YAML file (YOLOv7's repository).

Read from a copy of that repository, ``cfg/deploy`` and ``cfg/baseline``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

_FILES = {
    "yolov7_tiny": "deploy/yolov7-tiny.yaml",
    "yolov7m": "deploy/yolov7.yaml",
    "yolov3": "baseline/yolov3.yaml",
}


def find(model: str, folder: Path | None) -> tuple[str, Callable[[tuple[int, ...]], nn.Module]] | None:
    if model not in _FILES or folder is None:
        return None
    path = folder / _FILES[model]
    build = _leaky if model in ("yolov7_tiny", "yolov3") else Listed
    return f"github WongKinYiu/yolov7 cfg/{_FILES[model]}", lambda shape: build(path)


class Listed(nn.Module):
    def __init__(self, path: Path) -> None:
        super().__init__()
        document = yaml.safe_load(path.read_text())
        self.sources: list[list[int]] = []
        widths: list[int] = []
        layers = []
        for position, (source, count, kind, given) in enumerate(document["backbone"] + document["head"]):
            entries = [source] if isinstance(source, int) else source
            entries = [entry if entry >= 0 else position + entry for entry in entries]
            before = [widths[entry] if entry >= 0 else 3 for entry in entries]
            layer, after = _layer(kind, before, given, count)
            layers.append(layer)
            widths.append(after)
            self.sources.append(entries)
        self.layers = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> Any:
        values: list[Any] = []
        for layer, sources in zip(self.layers, self.sources, strict=True):
            read = [values[entry] if entry >= 0 else x for entry in sources]
            values.append(layer(*read))
        return values[-1]


def _leaky(path: Path) -> Listed:
    """As these two were published: leaky ReLU throughout."""
    network = Listed(path)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.SiLU):
                setattr(parent, name, nn.LeakyReLU(0.1))
    return network


def _layer(kind: str, before: list[int], given: list[Any], count: int) -> tuple[nn.Module, int]:
    width = before[0]
    if kind in ("Conv", "RepConv"):
        after, kernel, stride = (*given, 1, 1)[:3] if len(given) < 3 else given[:3]
        kernel = kernel[0] if isinstance(kernel, list) else kernel
        return nn.Sequential(*_repeat(lambda w: _conv(w, after, kernel, stride), width, after, count)), after
    if kind == "Bottleneck":
        residual = len(given) < 2 or given[1]
        return nn.Sequential(
            *_repeat(lambda w: _Bottleneck(w, given[0], residual), width, given[0], count)
        ), given[0]
    if kind == "MP":
        return nn.MaxPool2d(2, 2), width
    if kind == "SP":
        return nn.MaxPool2d(given[0], 1, given[0] // 2), width
    if kind == "Concat":
        return _Concat(), sum(before)
    if kind == "nn.Upsample":
        return nn.Upsample(scale_factor=given[1], mode=given[2]), width
    if kind == "SPPCSPC":
        return _SpatialPyramid(width, given[0]), given[0]
    if kind in ("Detect", "IDetect"):
        return _Detect(before), 0
    raise ValueError(f"a layer of kind {kind}")


def _repeat(make: Callable[[int], nn.Module], before: int, after: int, count: int) -> list[nn.Module]:
    return [make(before if position == 0 else after) for position in range(count)]


def _conv(before: int, after: int, kernel: int = 1, stride: int = 1) -> nn.Module:
    layer = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.SiLU())


class _Concat(nn.Module):
    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        return torch.cat(values, 1)


class _Bottleneck(nn.Module):
    """1x1 to half the width, 3x3 back."""

    def __init__(self, before: int, after: int, residual: bool) -> None:
        super().__init__()
        self.path = nn.Sequential(_conv(before, after // 2), _conv(after // 2, after, 3))
        self.residual = residual and before == after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.path(x) if self.residual else self.path(x)


class _SpatialPyramid(nn.Module):
    """Pools of three sizes beside a shortcut."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(_conv(before, after), _conv(after, after, 3), _conv(after, after))
        self.pools = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in (5, 9, 13))
        self.outer = nn.Sequential(_conv(4 * after, after), _conv(after, after, 3))
        self.beside, self.join = _conv(before, after), _conv(2 * after, after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.inner(x)
        inner = self.outer(torch.cat([inner, *(pool(inner) for pool in self.pools)], 1))
        return self.join(torch.cat([inner, self.beside(x)], 1))


class _Detect(nn.Module):
    """Per scale three boxes of four sides, one score and 80 classes."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.scales = nn.ModuleList(nn.Conv2d(width, 255, 1) for width in widths)

    def forward(self, *maps: torch.Tensor) -> torch.Tensor:
        found = []
        for scale, values in zip(self.scales, maps, strict=True):
            boxes = scale(values)
            batch, _, height, width = boxes.shape
            boxes = boxes.view(batch, 3, 85, height * width).permute(0, 1, 3, 2).sigmoid()
            found.append(boxes.reshape(batch, -1, 85))
        return torch.cat(found, 1)
