"""Augment one PIL image with timm, the same way each time that its state is the same.

timm and torchvision draw from three global generators (``random``, NumPy's and torch's). Each is seeded for
each sample, and put back after the batch, so that training's own randomness is not touched.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgekd.models.torchvision_shim import ensure_torchvision_ops
from edgekd.preprocess import Preprocess
from edgekd.recipe import AugmentRecipe

if TYPE_CHECKING:
    from PIL import Image


@contextmanager
def kept_generators() -> Iterator[None]:
    """Put the three global generators of the CPU back as they were."""
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])


def seed_generators(state: int) -> None:
    """Seed the three global generators of the CPU from one 64-bit number. A GPU's are not touched."""
    random.seed(state)
    np.random.seed(state & 0xFFFFFFFF)
    torch.default_generator.manual_seed(state & 0x7FFFFFFFFFFFFFFF)


class ImageAugment:
    """``(image, state)`` to float32 ``(channels, height, width)``.

    The geometry is timm's random resized crop where the recipe asks for one, else the deployed resize and
    crop; then a crop out of a padded image, flip, timm's auto-augment and colour jitter, erasing.
    """

    def __init__(self, preprocess: Preprocess, augment: AugmentRecipe) -> None:
        self.preprocess = preprocess
        self.augment = augment
        self._steps: list[Callable[[Any], Any]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A spawned process builds its own: unpickling torchvision's needs its operators declared first.
        return {"preprocess": self.preprocess, "augment": self.augment, "_steps": None}

    def __call__(self, image: Image.Image, state: int) -> torch.Tensor:
        """Call it inside :func:`kept_generators`."""
        if self._steps is None:
            self._steps = self._build()
        seed_generators(state)
        result: Any = image.convert("L" if self.preprocess.channels == 1 else "RGB")
        for step in self._steps:
            result = step(result)
        return result

    def _build(self) -> list[Callable[[Any], Any]]:
        ensure_torchvision_ops()
        from timm.data import create_transform
        from torchvision import transforms

        augment, preprocess = self.augment, self.preprocess
        size = (preprocess.height, preprocess.width)
        crop_flip, colours, to_tensor = create_transform(
            input_size=preprocess.input_shape,
            is_training=True,
            scale=augment.random_resized_crop,
            hflip=augment.hflip,
            color_jitter=augment.color_jitter or None,
            auto_augment=augment.auto_augment,
            interpolation=preprocess.interpolation,
            mean=preprocess.mean,
            std=preprocess.std,
            re_prob=augment.erasing,
            re_mode="const",
            separate=True,
        )
        crop, *flips = crop_flip.transforms
        steps: list[Callable[[Any], Any]] = [
            preprocess.resize_crop if augment.random_resized_crop is None else crop
        ]
        if augment.crop_padding:
            steps.append(transforms.RandomCrop(size, padding=augment.crop_padding))
        return [*steps, *flips, colours, to_tensor]
