"""Networks of published rows that neither timm nor torchvision defines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def find_net(model: str, yolov7: Path | None) -> tuple[str, Callable[[tuple[int, ...]], Any]] | None:
    """``(source, builder)``, see :mod:`benchmarks.latency.architecture_sources`."""
    from benchmarks.latency.nets import (
        efficientvit,
        listed,
        mlperf,
        mnasfpn,
        packages,
        segmentation,
        ssd,
        yolov4,
        yolox,
    )

    found = [
        listed.find(model, yolov7),
        *(
            home.find(model)
            for home in (packages, yolox, yolov4, ssd, segmentation, mlperf, mnasfpn, efficientvit)
        ),
    ]
    return next((entry for entry in found if entry is not None), None)
