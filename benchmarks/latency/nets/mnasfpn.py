"""MnasFPN (Chen et al. 2020, arXiv:1912.01106): a searched feature pyramid on MobileNetV2."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from benchmarks.latency.nets.ssd import conv, gathered, separable

# Of one cell: the two maps that are joined (the cell's four inputs first, then its own), level, window, inner width.
_CELL = [
    ((1, 2), 4, 3, 256),
    ((0, 4), 3, 3, 128),
    ((5, 4), 4, 3, 128),
    ((4, 3), 5, 5, 128),
    ((4, 3), 6, 3, 96),
]
_WIDTH, _HEAD, _CLASSES = 48, 64, 91


def find(model: str) -> tuple[str, Callable[[tuple[int, ...]], nn.Module]] | None:
    if model != "ssd_mnasfpn":
        return None
    return "arXiv:1912.01106, github tensorflow/models research/object_detection", lambda shape: MnasFpn()


class _Resized(nn.Module):
    """Channels first where the map grows, last where it shrinks."""

    def __init__(self, before: int, after: int, level: int, wanted: int) -> None:
        super().__init__()
        point = nn.Sequential(nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after))
        if level >= wanted:
            grow = [nn.Upsample(scale_factor=2 ** (level - wanted))] if level > wanted else []
            self.path = nn.Sequential(point, *grow)
        else:
            self.path = nn.Sequential(nn.MaxPool2d(3, 2 ** (wanted - level), 1), point)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.path(x)


class _Cell(nn.Module):
    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        widths, levels = list(widths), [3, 4, 5, 6]
        joins, outs = [], []
        for inputs, level, kernel, inner in _CELL:
            joins.append(
                nn.ModuleList(_Resized(widths[entry], inner, levels[entry], level) for entry in inputs)
            )
            layers = [nn.ReLU6(), nn.Conv2d(inner, inner, kernel, 1, kernel // 2, groups=inner, bias=False)]
            outs.append(
                nn.Sequential(*layers, nn.Conv2d(inner, _WIDTH, 1, bias=False), nn.BatchNorm2d(_WIDTH))
            )
            widths.append(_WIDTH)
            levels.append(level)
        self.joins, self.outs = nn.ModuleList(joins), nn.ModuleList(outs)

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        found = list(maps)
        for (inputs, *_), join, out in zip(_CELL, self.joins, self.outs, strict=True):
            first, second = (layer(found[entry]) for layer, entry in zip(join, inputs, strict=True))
            found.append(out(first + second))
        last = found[-4:]
        return [new + old if new.shape == old.shape else new for new, old in zip(last, maps, strict=True)]


class MnasFpn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        import timm

        self.backbone = timm.create_model(
            "mobilenetv2_100", features_only=True, out_indices=(2, 3, 4), exportable=True
        )
        widths = list(self.backbone.feature_info.channels())
        point = nn.Sequential(nn.Conv2d(widths[-1], _WIDTH, 1, bias=False), nn.BatchNorm2d(_WIDTH))
        self.coarse = nn.Sequential(nn.MaxPool2d(3, 2, 1), point)
        cells = [_Cell([*widths, _WIDTH])]
        cells += [_Cell([_WIDTH] * 4) for _ in range(3)]
        self.cells = nn.ModuleList(cells)
        self.boxes, self.classes = (self._head(values) for values in (4, _CLASSES))

    @staticmethod
    def _head(values: int) -> nn.Module:
        tower = [separable(_WIDTH if position == 0 else _HEAD, _HEAD) for position in range(4)]
        return nn.Sequential(*tower, conv(_HEAD, _HEAD, 3, 1, _HEAD), nn.Conv2d(_HEAD, 6 * values, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = list(self.backbone(x))
        maps.append(self.coarse(maps[-1]))
        for cell in self.cells:
            maps = cell(maps)
        boxes, classes = (nn.ModuleList([head] * 4) for head in (self.boxes, self.classes))
        return gathered(boxes, maps, 4), gathered(classes, maps, _CLASSES).sigmoid()
