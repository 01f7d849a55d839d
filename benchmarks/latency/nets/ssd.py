"""Single-shot detectors (Liu et al. 2016, arXiv:1512.02325) as TensorFlow's and MLPerf's model zoos publish them.

A backbone, a few more maps each half as large, or a feature pyramid; on every map boxes and scores of 90 classes and
background. Layer widths: github tensorflow/models object_detection, its published pipeline files.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from benchmarks.latency.nets import mobiledet

_CLASSES = 91
_TF = "github tensorflow/models research/object_detection"


def find(model: str) -> tuple[str, Callable[[tuple[int, ...]], nn.Module]] | None:
    builders: dict[str, tuple[str, Callable[[], nn.Module]]] = {
        "ssdlite_mobilenet_v3_large": (
            "torchvision mobilenet_v3_large, " + _TF,
            lambda: _mobilenet_v3("large"),
        ),
        "ssdlite_mobilenet_v3_small": (
            "torchvision mobilenet_v3_small, " + _TF,
            lambda: _mobilenet_v3("small"),
        ),
        "ssdlite_mobiledet_cpu": ("arXiv:2004.14525, " + _TF, lambda: SsdLite(mobiledet.cpu(), [72, 144])),
        "ssdlite_mobiledet_edgetpu": (
            "arXiv:2004.14525, " + _TF,
            lambda: SsdLite(mobiledet.edgetpu(), [96, 384]),
        ),
        "ssdlite_mobilenetedgetpu": ("timm mobilenet_edgetpu_100, " + _TF, _mobilenet_edgetpu),
        "ssd_mobilenet_v1_mlperf": ("timm mobilenetv1_100, " + _TF, _mobilenet_v1),
        "ssd_mobilenet_v1_fpn": (
            "timm mobilenetv1_100, " + _TF,
            lambda: _pyramid("mobilenetv1_100", 256, False),
        ),
        "ssd_mobilenet_v2_fpnlite": (
            "timm mobilenetv2_100, " + _TF,
            lambda: _pyramid("mobilenetv2_100", 128, True),
        ),
        "ssd_resnet50_v1_fpn": ("timm resnet50, " + _TF, lambda: _pyramid("resnet50", 256, False)),
    }
    if model not in builders:
        return None
    source, build = builders[model]
    return source, lambda shape: build()


def conv(before: int, after: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.ReLU6())


def separable(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(conv(before, before, 3, stride, before), conv(before, after))


class _Detector(nn.Module):
    """A backbone's maps, ``more`` of them one from the other, boxes and scores on each."""

    backbone: nn.Module
    more: nn.ModuleList
    boxes: nn.ModuleList
    classes: nn.ModuleList

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = list(self.backbone(x))
        for block in self.more:
            maps.append(block(maps[-1]))
        return gathered(self.boxes, maps, 4), gathered(self.classes, maps, _CLASSES).sigmoid()


class SsdLite(_Detector):
    """Two maps of the backbone and four more of 512, 256, 256 and 128 channels, all separable."""

    def __init__(self, backbone: nn.Module, widths: list[int]) -> None:
        super().__init__()
        self.backbone = backbone
        more, before = [], widths[-1]
        for after in (512, 256, 256, 128):
            more.append(nn.Sequential(conv(before, after // 2), separable(after // 2, after, 2)))
            before = after
        self.more = nn.ModuleList(more)
        anchors = [3, 6, 6, 6, 6, 6]
        self.boxes, self.classes = (
            nn.ModuleList(
                nn.Sequential(conv(width, width, 3, 1, width), nn.Conv2d(width, count * values, 1))
                for width, count in zip([*widths, 512, 256, 256, 128], anchors, strict=True)
            )
            for values in (4, _CLASSES)
        )


def gathered(heads: nn.ModuleList, maps: list[torch.Tensor], values: int) -> torch.Tensor:
    """Predictions of all maps in one tensor ``(batch, boxes, values)``."""
    found = []
    for head, features in zip(heads, maps, strict=True):
        found.append(head(features).permute(0, 2, 3, 1).reshape(features.shape[0], -1, values))
    return torch.cat(found, 1)


def _mobilenet_v3(size: str) -> nn.Module:
    """The stride-16 map is taken inside a block, after its expansion; the last stage has half its channels."""
    from torchvision.models import get_model
    from torchvision.models.detection.ssdlite import _mobilenet_extractor

    network = get_model(f"mobilenet_v3_{size}", weights=None, reduced_tail=True)
    extractor = _mobilenet_extractor(network, 6, nn.BatchNorm2d)
    with torch.no_grad():
        widths = [values.shape[1] for values in extractor.eval()(torch.zeros(1, 3, 64, 64)).values()]

    class Maps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = extractor.features

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            found = []
            for block in self.features:
                x = block(x)
                found.append(x)
            return found

    return SsdLite(Maps(), widths[:2])


def _mobilenet_edgetpu() -> nn.Module:
    import timm

    backbone = timm.create_model(
        "mobilenet_edgetpu_100", features_only=True, out_indices=(3, 4), exportable=True
    )
    return SsdLite(backbone, list(backbone.feature_info.channels()))


class _SsdV1(_Detector):
    """MobileNetV1 with dense further maps; predictions by 1x1 convolutions."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        widths, inner = [512, 1024, 512, 256, 256, 128], [256, 128, 128, 64]
        self.more = nn.ModuleList(
            nn.Sequential(conv(before, middle), conv(middle, after, 3, 2))
            for before, middle, after in zip(widths[1:], inner, widths[2:], strict=False)
        )
        self.boxes, self.classes = (
            nn.ModuleList(
                nn.Conv2d(width, count * values, 1)
                for width, count in zip(widths, [3, 6, 6, 6, 6, 6], strict=True)
            )
            for values in (4, _CLASSES)
        )


def _mobilenet_v1() -> nn.Module:
    import timm

    return _SsdV1(
        timm.create_model("mobilenetv1_100", features_only=True, out_indices=(3, 4), exportable=True)
    )


class _Pyramid(nn.Module):
    """Maps of strides 8 to 128 of one width; four more layers before the predictions, their weights shared."""

    def __init__(self, backbone: nn.Module, widths: list[int], width: int, lite: bool) -> None:
        super().__init__()
        self.backbone = backbone
        wide = separable if lite else (lambda before, after, stride=1: conv(before, after, 3, stride))
        self.lateral = nn.ModuleList(nn.Conv2d(before, width, 1) for before in widths)
        self.smooth = nn.ModuleList(wide(width, width) for _ in widths[:-1])
        self.coarse = nn.ModuleList(wide(width, width, 2) for _ in range(2))
        towers = [nn.Sequential(*(wide(width, width) for _ in range(4))) for _ in range(2)]
        last = (
            [
                nn.Sequential(conv(width, width, 3, 1, width), nn.Conv2d(width, 6 * size, 1))
                for size in (4, _CLASSES)
            ]
            if lite
            else [nn.Conv2d(width, 6 * size, 3, padding=1) for size in (4, _CLASSES)]
        )
        self.boxes, self.classes = (nn.Sequential(*pair) for pair in zip(towers, last, strict=True))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = [lateral(values) for lateral, values in zip(self.lateral, self.backbone(x), strict=True)]
        maps = [found[-1]]
        for values in reversed(found[:-1]):
            maps.insert(0, values + nn.functional.interpolate(maps[0], scale_factor=2.0, mode="nearest"))
        maps = [*(layer(values) for layer, values in zip(self.smooth, maps, strict=False)), maps[-1]]
        for layer in self.coarse:
            maps.append(layer(maps[-1]))
        shared = [nn.ModuleList([head] * len(maps)) for head in (self.boxes, self.classes)]
        return gathered(shared[0], maps, 4), gathered(shared[1], maps, _CLASSES).sigmoid()


def _pyramid(name: str, width: int, lite: bool) -> nn.Module:
    import timm

    backbone = timm.create_model(name, features_only=True, out_indices=(2, 3, 4), exportable=True)
    return _Pyramid(backbone, list(backbone.feature_info.channels()), width, lite)
