"""The one door to neural-compressor 3.10: what is used of it, imported late and kept quiet.

It logs tables and timings of its own at every step; what happened is ours to tell. It also makes a folder
``nc_workspace`` wherever the user stands; that goes into the cache.
"""

from __future__ import annotations

import logging
from typing import Any

from edgekd.data.cache_dir import cache_dir
from edgekd.models.torchvision_shim import ensure_torchvision_ops


def tuning_framework() -> tuple[Any, Any]:
    """``BaseConfig`` and the module ``base_tuning``: search space, stopping criterion, record of trials."""
    from neural_compressor.common import base_tuning
    from neural_compressor.common.base_config import BaseConfig, options

    _quiet()
    options.workspace = str(cache_dir() / "neural-compressor")
    return BaseConfig, base_tuning


def weight_rounding() -> tuple[Any, Any]:
    """``quant_tensor`` (rounding block by block) and the class ``GPTQ`` (one layer's solver)."""
    ensure_torchvision_ops()  # it imports transformers
    tuning_framework()  # quiet before the torch part is imported
    from neural_compressor.torch.algorithms.weight_only.gptq import GPTQ
    from neural_compressor.torch.algorithms.weight_only.utility import quant_tensor

    return quant_tensor, GPTQ


def _quiet() -> None:
    logging.getLogger("neural_compressor").setLevel(logging.ERROR)
