"""Detectors of MLPerf inference and of NVIDIA's accelerator samples, on torchvision's backbones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_RETINA = {
    "retinanet_resnext50_mlperf": ("resnext50_32x4d", 264),
    "retinanet_resnet34": ("resnet34", 90),
}


def find(model: str) -> tuple[str, Callable[[tuple[int, ...]], nn.Module]] | None:
    if model in _RETINA:
        name, classes = _RETINA[model]
        return f"torchvision {name} with its RetinaNet head, {classes} classes", lambda shape: Retina(
            name, classes
        )
    if model == "ssd_resnet34_mlperf":
        source = "torchvision resnet34, layers of MLPerf's SSD-ResNet34 (433 GFLOPs, 20.06 M: Open Model Zoo)"
        return source, lambda shape: SsdResnet34()
    if model == "resnet34_backbone":
        return "torchvision resnet34 without its classifier", lambda shape: _trunk("resnet34")
    return None


def _trunk(name: str) -> nn.Module:
    import torchvision

    return nn.Sequential(*list(torchvision.models.get_model(name, weights=None).children())[:-2])


class Retina(nn.Module):
    """Feature pyramid of five maps, four layers of 256 channels before classes and boxes."""

    def __init__(self, name: str, classes: int) -> None:
        super().__init__()
        from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
        from torchvision.models.detection.retinanet import RetinaNetHead
        from torchvision.ops.feature_pyramid_network import LastLevelP6P7

        more = LastLevelP6P7(256, 256)
        self.backbone = resnet_fpn_backbone(
            backbone_name=name,
            weights=None,
            norm_layer=nn.BatchNorm2d,
            returned_layers=[2, 3, 4],
            extra_blocks=more,
        )
        self.head = RetinaNetHead(256, 9, classes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found: dict[str, Any] = self.head(list(self.backbone(x).values()))
        return found["cls_logits"].sigmoid(), found["bbox_regression"]


class SsdResnet34(nn.Module):
    """The third stage keeps its map's size; six maps, read with steps of two and three."""

    def __init__(self) -> None:
        super().__init__()
        import torchvision

        trunk = torchvision.models.resnet34(weights=None)
        trunk.layer3[0].conv1.stride = trunk.layer3[0].downsample[0].stride = (1, 1)
        self.backbone = nn.Sequential(*list(trunk.children())[:-3])
        rows = [(256, 256, 512, 2, 1), (512, 256, 512, 2, 1), (512, 128, 256, 2, 1), (256, 128, 256, 2, 0)]
        rows.append((256, 128, 256, 1, 0))
        self.more = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, inner, 1), nn.ReLU(), nn.Conv2d(inner, after, 3, stride, pad), nn.ReLU()
            )
            for before, inner, after, stride, pad in rows
        )
        widths, anchors, steps = [256, 512, 512, 256, 256, 256], [4, 6, 6, 6, 4, 4], [3, 3, 2, 2, 2, 2]
        self.boxes, self.classes = (
            nn.ModuleList(
                nn.Conv2d(width, count * values, 3, step, 1)
                for width, count, step in zip(widths, anchors, steps, strict=True)
            )
            for values in (4, 81)
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        maps = [self.backbone(x)]
        for block in self.more:
            maps.append(block(maps[-1]))
        heads = [*self.boxes, *self.classes]
        return [head(values).flatten(2) for head, values in zip(heads, maps * 2, strict=True)]
