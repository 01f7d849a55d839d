"""EfficientViT for segmentation (Cai et al. 2023, arXiv:2205.14756) on timm's backbones, and encoders of SAM kinds.

Widths and depths of the heads: github mit-han-lab/efficientvit, which also states the multiply-accumulates.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import nn

# Width, blocks of the head, whether its blocks are dense.
_HEADS = {"b0": (32, 1, False), "b1": (64, 3, False), "b2": (96, 3, False), "b3": (128, 3, False)}
_HEADS |= {"l1": (256, 3, True), "l2": (256, 5, True)}


def find(model: str) -> tuple[str, Callable[[tuple[int, ...]], nn.Module]] | None:
    if found := re.fullmatch(r"efficientvit_([bl]\d)_seg", model):
        size = found[1]
        source = f"timm efficientvit_{size}, head of github mit-han-lab/efficientvit"
        # Trained for 19 classes at 1024x2048 and for 150 at 512x512.
        return source, lambda shape: Segmentation(size, 19 if shape[3] > 1024 else 150)
    if model == "nanosam_resnet18_image_encoder":
        return "timm resnet18, neck of github NVIDIA-AI-IOT/nanosam", lambda shape: NanoSam()
    return None


def conv(before: int, after: int, kernel: int = 1, groups: int = 1, *, act: bool = True) -> nn.Module:
    layers = [
        nn.Conv2d(before, after, kernel, 1, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(after),
    ]
    return nn.Sequential(*layers, *([nn.Hardswish()] if act else []))


class _Block(nn.Module):
    def __init__(self, width: int, dense: bool) -> None:
        super().__init__()
        inner = width if dense else 4 * width
        if dense:
            layers = [conv(width, inner, 3), conv(inner, width, act=False)]
        else:
            layers = [conv(width, inner), conv(inner, inner, 3, inner), conv(inner, width, act=False)]
        self.path = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.path(x)


class Segmentation(nn.Module):
    """Maps of strides 8, 16 and 32 are added up at stride 8."""

    def __init__(self, size: str, classes: int) -> None:
        super().__init__()
        import timm

        width, depth, dense = _HEADS[size]
        self.backbone = timm.create_model(f"efficientvit_{size}", features_only=True, exportable=True)
        widths = self.backbone.feature_info.channels()
        self.taps = [
            k for k, step in enumerate(self.backbone.feature_info.reduction()) if step in (8, 16, 32)
        ]
        self.inputs = nn.ModuleList(conv(widths[tap], width, act=False) for tap in self.taps)
        self.middle = nn.Sequential(*(_Block(width, dense) for _ in range(depth)))
        last = width if size == "b0" else 4 * width
        self.output = nn.Sequential(
            *([] if size == "b0" else [conv(width, last)]), nn.Conv2d(last, classes, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.backbone(x)
        first = self.inputs[0](maps[self.taps[0]])
        for layer, tap in zip(list(self.inputs)[1:], self.taps[1:], strict=True):
            size = [int(value) for value in first.shape[2:]]
            first = first + nn.functional.interpolate(layer(maps[tap]), size=size, mode="bicubic")
        return self.output(self.middle(first))


class NanoSam(nn.Module):
    """ResNet-18 whose last three maps become one of 256 channels at stride 16."""

    def __init__(self) -> None:
        super().__init__()
        import timm

        self.backbone = timm.create_model("resnet18", features_only=True, out_indices=(2, 3, 4))
        self.lateral = nn.ModuleList(nn.Conv2d(width, 256, 1) for width in (128, 256, 512))
        self.neck = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.GELU()) for _ in range(2))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.backbone(x)
        size = [int(value) for value in maps[1].shape[2:]]
        found = [
            nn.functional.interpolate(layer(values), size=size, mode="bilinear")
            for layer, values in zip(self.lateral, maps, strict=True)
        ]
        return self.neck(found[0] + found[1] + found[2])
