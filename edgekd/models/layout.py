"""How inputs lie in memory: images channels-last, which convolutions run faster on; token ids as they are."""

from __future__ import annotations

import torch
from torch import Tensor


def laid_out(inputs: Tensor) -> Tensor:
    """``(batch, channels, height, width)`` in channels-last order; any other rank unchanged."""
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs
