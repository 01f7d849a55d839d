"""What happens to an image before the model sees it: the one definition that evaluation and deployment share.

Training augments with timm; everything that *measures* (validation, parity, the ONNX file on the test
split, ``deploy/*/run.py``) goes through :class:`Preprocess`, so that a number in the report is a number
of the deployed pipeline. numpy and Pillow only.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from PIL import Image

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


class Preprocess(BaseModel):
    """Resize the short side, crop the centre, scale to 0..1, normalise.

    The values are timm's data config: ``crop_pct`` is the share of the resized short side that the crop
    keeps; ``crop_mode="squash"`` resizes both sides without keeping the aspect ratio.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    channels: Literal[1, 3] = 3
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: Interpolation = "bicubic"
    crop_pct: float = Field(default=1.0, gt=0, le=1)
    crop_mode: Literal["center", "squash"] = "center"

    input_name: ClassVar[str] = "input"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)``"""
        return (self.channels, self.height, self.width)

    def example_shape(self, batch: int) -> tuple[int, ...]:
        """``(batch, channels, height, width)``"""
        return (batch, *self.input_shape)

    def example(self, batch: int) -> np.ndarray:
        """Zeros, float32: structure and cost depend on shapes alone."""
        return np.zeros(self.example_shape(batch), np.float32)

    def files(self) -> dict[str, str]:
        """What must stand beside the model, by name: nothing."""
        return {}

    def resize_crop(self, image: Image.Image) -> Image.Image:
        """``image`` in the model's mode (L or RGB), resized and centre-cropped to ``(width, height)``."""
        from PIL import Image as PILImage

        image = image.convert("L" if self.channels == 1 else "RGB")
        resample = PILImage.Resampling[self.interpolation.upper()]
        if self.crop_mode == "squash":
            return image.resize((self.width, self.height), resample)
        if image.size == (self.width, self.height) and self.crop_pct == 1.0:
            return image
        # timm: the short side becomes floor(side / crop_pct); the long side follows, truncated.
        if self.height == self.width:
            short = math.floor(self.height / self.crop_pct)
            width, height = image.size
            if width <= height:
                size = (short, int(short * height / width))
            else:
                size = (int(short * width / height), short)
        else:
            scale = max(
                math.floor(self.height / self.crop_pct) / image.height,
                math.floor(self.width / self.crop_pct) / image.width,
            )
            size = (
                max(self.width, round(image.width * scale)),
                max(self.height, round(image.height * scale)),
            )
        if image.size != size:
            image = image.resize(size, resample)
        left = round((image.width - self.width) / 2.0)
        top = round((image.height - self.height) / 2.0)
        return image.crop((left, top, left + self.width, top + self.height))

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 pixels to float32 ``(..., channels, height, width)``.

        Args:
            pixels: ``(..., height, width, 3)``, or ``(..., height, width)`` for one channel.
        """
        if self.channels == 1:
            pixels = pixels[..., None]
        scaled = pixels.astype(np.float32) / np.float32(255)
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        return np.ascontiguousarray(np.moveaxis((scaled - mean) / std, -1, -3))

    def __call__(self, image: Image.Image) -> np.ndarray:
        """One PIL image to float32 ``(channels, height, width)``."""
        return self.normalise(np.asarray(self.resize_crop(image)))
