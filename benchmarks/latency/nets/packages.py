"""Detectors that packages define: ``ultralytics`` (YOLO) and ``effdet`` (EfficientDet). Neither need be installed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

# YOLOv3 and v5 were published with one 1x1 convolution a scale as head; the package's own is newer and larger.
_ANCHORS = re.compile(r"yolov3_tiny|yolov5[lmnsx]")
_DECOUPLED = re.compile(r"yolov6n|yolov8[lmnsx]|yolov9[tsm]|yolov10[lmnsx]|yolo11[lmnsx]|yolo26[lmnsx]")
_EFFICIENTDET = re.compile(r"efficientdet_(lite\d|lite3x|d\d)")


def find(model: str) -> tuple[str, Callable[[tuple[int, ...]], Any]] | None:
    if _ANCHORS.fullmatch(model) or _DECOUPLED.fullmatch(model):
        name = model.replace("_", "-") + ".yaml"
        return f"ultralytics {name}", lambda shape: _yolo(name, plain=bool(_ANCHORS.fullmatch(model)))
    if _EFFICIENTDET.fullmatch(model):
        name = f"tf_{model}"
        return f"effdet {name}", lambda shape: _efficientdet(name, shape)
    return None


def _yolo(name: str, *, plain: bool) -> Any:
    import torch
    from ultralytics.nn.tasks import DetectionModel

    class AnchorHead(torch.nn.Module):
        """Per scale three boxes of four sides, one score and 80 classes."""

        def __init__(self, old: Any) -> None:
            super().__init__()
            self.f, self.i, self.type = old.f, old.i, "AnchorHead"
            widths = [branch[0].conv.in_channels for branch in old.cv2]
            self.scales = torch.nn.ModuleList(torch.nn.Conv2d(width, 255, 1) for width in widths)

        def forward(self, maps: list[Any]) -> Any:
            return tuple(scale(values) for scale, values in zip(self.scales, maps, strict=True))

    network = DetectionModel(name, ch=3, nc=80, verbose=False)
    head = network.model[-1]
    if plain:
        network.model[-1] = AnchorHead(head)
        return network
    head.export, head.format, head.dynamic = True, "onnx", True
    if hasattr(network, "fuse"):
        network.eval().fuse(verbose=False)
    return network


def _efficientdet(name: str, shape: tuple[int, ...]) -> Any:
    from effdet import EfficientDet, get_efficientdet_config

    config = get_efficientdet_config(name)
    config.image_size = tuple(shape[2:])
    return EfficientDet(config, pretrained_backbone=False)
