"""Crop, flip and erase a whole batch of arrays at once.

For pixels in memory that already have the model's size. Of a 28x28 image, calls in Python would cost more
than the pixels do, so nothing here loops over samples but over the few that are erased. Each sample's
numbers come from its own state (:mod:`edgekd.data.hashing`), so the batch it is in does not matter.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from edgekd.data.batches import normalise_planes
from edgekd.data.hashing import uniforms
from edgekd.preprocess import Preprocess
from edgekd.recipe_stages import AugmentRecipe

_DRAWS = 8
# Z. Zhong et al., "Random Erasing Data Augmentation", AAAI 2020, arXiv:1708.04896; timm's ranges.
_ERASED_AREA = (0.02, 1 / 3)
_ERASED_ASPECT = (0.3, 1 / 0.3)


def is_vectorised(augment: AugmentRecipe) -> bool:
    """Whether ``augment`` asks for nothing but crop, flip and erasing (mixup works on any batch)."""
    return augment.random_resized_crop is None and augment.auto_augment is None and augment.color_jitter == 0


def augment_arrays(
    pixels: np.ndarray, states: np.ndarray, preprocess: Preprocess, augment: AugmentRecipe
) -> np.ndarray:
    """Augmented and normalised float32 ``(n, channels, height, width)``.

    Args:
        pixels: uint8 ``(n, height, width)`` or ``(n, height, width, 3)``.
        states: uint64 ``(n,)``, one random stream a sample.
    """
    draws = uniforms(states, _DRAWS)
    planes = _crop(pixels, draws[:, 0], draws[:, 1], augment.crop_padding)
    flipped = draws[:, 2] < augment.hflip
    planes[flipped] = planes[flipped][..., ::-1]
    inputs = normalise_planes(planes, preprocess)
    _erase(inputs, draws[:, 3:], augment.erasing)
    return inputs


def _crop(pixels: np.ndarray, top: np.ndarray, left: np.ndarray, padding: int) -> np.ndarray:
    """A fresh uint8 ``(n, height, width)`` or ``(n, 3, height, width)``, shifted by up to ``padding``."""
    if padding == 0:
        return np.array(pixels if pixels.ndim == 3 else np.moveaxis(pixels, -1, 1), order="C")
    count, height, width = pixels.shape[:3]
    padded = np.zeros((count, height + 2 * padding, width + 2 * padding, *pixels.shape[3:]), np.uint8)
    padded[:, padding:-padding, padding:-padding] = pixels
    steps = 2 * padding + 1
    windows = sliding_window_view(padded, (height, width), axis=(1, 2))
    return windows[np.arange(count), (top * steps).astype(np.intp), (left * steps).astype(np.intp)]


def _erase(inputs: np.ndarray, draws: np.ndarray, probability: float) -> None:
    """Set a random rectangle of some samples to zero, which is the mean colour."""
    height, width = inputs.shape[-2:]
    low, high = map(math.log, _ERASED_ASPECT)
    for position in np.flatnonzero(draws[:, 0] < probability).tolist():
        area, aspect, top, left = draws[position, 1:5].tolist()
        area = height * width * (_ERASED_AREA[0] + area * (_ERASED_AREA[1] - _ERASED_AREA[0]))
        aspect = math.exp(low + aspect * (high - low))
        tall = min(height - 1, max(1, round(math.sqrt(area * aspect))))
        wide = min(width - 1, max(1, round(math.sqrt(area / aspect))))
        y, x = int(top * (height - tall + 1)), int(left * (width - wide + 1))
        inputs[position, :, y : y + tall, x : x + wide] = 0
