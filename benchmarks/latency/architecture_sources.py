"""Where the layers of a published model are defined: a builder of the network, by its published name.

timm, torchvision and transformers first; what none of them has is written down in ``nets/`` after its paper, or
comes from a package that need not be installed (``ultralytics``, ``effdet``): its entries of the table then stay
as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

Build = Callable[[tuple[int, ...]], Any]
"""The shape of the input (batch, channels, height, width) to an ``nn.Module``."""

_TORCHVISION = {
    **{f"resnet{depth}": f"resnet{depth}" for depth in (34, 50, 101, 152)},
    **{f"vgg{depth}{tail}": f"vgg{depth}{tail}" for depth in (11, 13, 16, 19) for tail in ("", "_bn")},
    **{f"densenet{depth}": f"densenet{depth}" for depth in (161, 169, 201)},
    **{f"shufflenet_v2_{width}": f"shufflenet_v2_{width}" for width in ("x0_5", "x1_0", "x1_5", "x2_0")},
    **{f"mnasnet{width}": f"mnasnet{width}" for width in ("0_5", "0_75", "1_3")},
    **{f"mnasnet_{width.replace('_', '.')}": f"mnasnet{width}" for width in ("0_5", "0_75", "1_0", "1_3")},
    "alexnet": "alexnet",
    "squeezenet_v1.0": "squeezenet1_0",
    "squeezenet_v1.1": "squeezenet1_1",
    "wide_resnet50_2": "wide_resnet50_2",
    "regnety_400m": "regnet_y_400mf",
}
_TIMM = {
    "ese_vovnet19b_dw": "ese_vovnet19b_dw",
    "mnasnet_a1": "semnasnet_100",
    "mobilenet_v2_110d_timm": "mobilenetv2_110d",
    "repvgg_b0": "repvgg_b0",
    "mobilenet_v3_large_1.0": "mobilenetv3_large_100",
    "mobilenet_v3_large_0.75": "mobilenetv3_large_075",
    "mobilenet_v3_small_1.0": "mobilenetv3_small_100",
    "mobilenet_v3_small_0.75": "mobilenetv3_small_075",
    "mobilenet_v3_small_0.5": "mobilenetv3_small_050",
    "mobilenet_v3_large_minimalistic_1.0": "tf_mobilenetv3_large_minimal_100",
    "mobilenet_v3_small_minimalistic_1.0": "tf_mobilenetv3_small_minimal_100",
    **{f"efficientnet_lite{size}": f"efficientnet_lite{size}" for size in range(5)},
    "efficientnet_b0": "efficientnet_b0",
    "efficientnet_b1": "efficientnet_b1",
    "efficientnetv2_b0": "tf_efficientnetv2_b0",
    **{f"mixnet_{size}": f"mixnet_{size}" for size in "sml"},
    "mobilevit_s": "mobilevit_s",
    "vit_tiny": "vit_tiny_patch16_224",
    "efficientformer_l1": "efficientformer_l1",
    "efficientformer_l3": "efficientformer_l3",
    **{f"efficientvit_b{size}_cls": f"efficientvit_b{size}" for size in range(4)},
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "inception_resnet_v2": "inception_resnet_v2",
    "resnet50_v2": "resnetv2_50",
    "resnet_v2_101": "resnetv2_101",
    "clip_vit_b32": "vit_base_patch32_clip_224",
}
# Models whose file on ncnn's rows is its own, by the name in its folder benchmark/models.
NCNN = {
    "alexnet": "alexnet",
    "blazeface": "blazeface",
    "efficientnetv2_b0": "efficientnetv2_b0",
    "fastestdet": "FastestDet",
    "mnasnet_1.0": "mnasnet",
    "mobilenet_v1_1.0": "mobilenet",
    "mobilenet_v2_1.0": "mobilenet_v2",
    "mobilenet_yolo": "mobilenet_yolo",
    "mobilenetv2_yolov3": "mobilenetv2_yolov3",
    "nanodet_m": "nanodet_m",
    "proxylessnasnet": "proxylessnasnet",
    "regnety_400m": "regnety_400m",
    "resnet50": "resnet50",
    "shufflenet_v1": "shufflenet",
    "squeezenet_v1.1": "squeezenet",
    "ssd_mobilenet_v1": "mobilenet_ssd",
    "ssd_squeezenet": "squeezenet_ssd",
    "vgg16": "vgg16",
    "yolo_fastest_1.1": "yolo-fastest-1.1",
    "yolo_fastestv2": "yolo-fastestv2",
    "yolov4_tiny": "yolov4-tiny",
}


def find_builder(model: str, yolov7: Path | None = None) -> tuple[str, Build] | None:
    """``(source, builder)`` of a published name; None where no definition is known.

    Args:
        yolov7: folder ``cfg`` of YOLOv7's repository.
    """
    if model in _TORCHVISION:
        return f"torchvision {_TORCHVISION[model]}", lambda shape: _torchvision(_TORCHVISION[model])
    if model in _TIMM:
        return f"timm {_TIMM[model]}", lambda shape: _timm(_TIMM[model], shape)
    if found := re.fullmatch(r"mobilenet_v([12])_(\d\.\d+)", model):
        version, width = found[1], float(found[2])
        source = f"timm mobilenetv{version}_100 of width {width:g}"
        return source, lambda shape: _mobilenet(version, width)
    from benchmarks.latency.nets import find_net

    return find_net(model, yolov7)


def _torchvision(name: str) -> Any:
    import torchvision

    return torchvision.models.get_model(name, weights=None)


def _timm(name: str, shape: tuple[int, ...]) -> Any:
    import timm

    options = {"img_size": shape[2:]} if name.startswith("vit_") else {}
    return timm.create_model(name, pretrained=False, exportable=True, **options)


def _mobilenet(version: str, width: float) -> Any:
    """Widths that timm has no name for."""
    from timm.models import efficientnet

    make = getattr(efficientnet, f"_gen_mobilenet_v{version}")
    return make(f"mobilenetv{version}_100", width, pretrained=False)
