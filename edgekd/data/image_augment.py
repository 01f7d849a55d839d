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

from edgekd.errors import RecipeError, fault
from edgekd.models.torchvision_shim import ensure_torchvision_ops
from edgekd.preprocess import Preprocess
from edgekd.recipe_stages import AugmentRecipe

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
    crop; then a crop out of a padded image, flip, timm's auto-augment and colour jitter, the deployed
    normalisation, erasing.
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
            self.build()
        seed_generators(state)
        result: Any = image.convert("L" if self.preprocess.channels == 1 else "RGB")
        for step in self._steps or ():
            result = step(result)
        return result

    def build(self) -> None:
        """Make timm's transforms now instead of at the first image.

        Raises:
            RecipeError: timm does not understand the recipe's ``auto_augment``.
        """
        ensure_torchvision_ops()
        from timm.data import create_transform
        from torchvision import transforms

        augment, preprocess = self.augment, self.preprocess
        try:
            crop_flip, colours, tensor = create_transform(
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
        except (AssertionError, ValueError, KeyError, IndexError, TypeError):
            allowed = "timm's form, such as rand-m9-mstd0.5-inc1"
            what = "timm does not understand it"
            raise RecipeError(
                fault("augment.auto_augment", what, got=augment.auto_augment, allowed=allowed)
            ) from None
        for policy in colours.transforms:
            _keep_a_bit(policy)
        crop, *flips = crop_flip.transforms
        _to_tensor, _normalise, *erasing = tensor.transforms
        if augment.random_resized_crop is None:
            crop = preprocess.resize_crop
        size, padding = (preprocess.height, preprocess.width), augment.crop_padding
        shift = [transforms.RandomCrop(size, padding=padding)] if padding else []
        self._steps = [crop, *shift, *flips, *colours.transforms, self._to_input, *erasing]

    def _to_input(self, image: Image.Image) -> torch.Tensor:
        # Not timm's: training and measuring normalise by one definition, and small torch operators would
        # each wake every thread of this process.
        return torch.from_numpy(self.preprocess.normalise(np.asarray(image)))


def _keep_a_bit(policy: Any) -> None:
    """Let timm posterize to one bit at least: at full strength it asks for none, which Pillow refuses."""
    from timm.data import auto_augment

    pairs = getattr(policy, "policy", ())  # AutoAugment has pairs of operations, the others have a list
    for step in [*getattr(policy, "ops", ()), *(step for pair in pairs for step in pair)]:
        if step.aug_fn is auto_augment.posterize:
            step.aug_fn = _posterize


def _posterize(image: Image.Image, bits_to_keep: int, **_: Any) -> Image.Image:
    from PIL import ImageOps

    return image if bits_to_keep >= 8 else ImageOps.posterize(image, max(1, bits_to_keep))
