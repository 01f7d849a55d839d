"""Batches for measuring, in NumPy: in order, every sample once, through the deployed preprocessing.

No torch: an ONNX file is evaluated on a board that has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeGuard, cast

import numpy as np

from edgekd.data.arrays import ArraySource
from edgekd.data.source import ImageSource, SampleSource, Split, is_text
from edgekd.data.tokens import tokens_of
from edgekd.errors import DataError, fault
from edgekd.preprocess import Preprocess
from edgekd.preprocess_text import AnyPreprocess, TextPreprocess


def is_direct(source: SampleSource, preprocess: Preprocess) -> TypeGuard[ArraySource]:
    """Whether the stored pixels are what :meth:`Preprocess.resize_crop` would return, gray to RGB aside."""
    return (
        isinstance(source, ArraySource)
        and source.pixels.shape[1:3] == (preprocess.height, preprocess.width)
        and (preprocess.crop_mode == "squash" or preprocess.crop_pct == 1.0)
        and (source.pixels.ndim == 3 or preprocess.channels == 3)
    )


def eval_inputs(source: SampleSource, preprocess: AnyPreprocess, indices: np.ndarray) -> np.ndarray:
    """Float32 ``(n, channels, height, width)``, or int64 token ids ``(n, longest)``, as the model sees them.

    Raises:
        SampleError: an image cannot be read.
        DataError: images for a model that takes text, or texts for one that takes images.
    """
    if isinstance(preprocess, TextPreprocess):
        return preprocess.pad(tokens_of(source, preprocess).of(indices))
    if is_text(source):
        fix = "set task: image-classification, or give a model that takes text"
        raise DataError(fault(source.name, "the data are texts, the model takes images", fix=fix))
    if not is_direct(source, preprocess):
        images = cast(ImageSource, source)
        return np.stack([preprocess(images.image(index)) for index in indices.tolist()])
    pixels = source.pixels[indices]
    return normalise_planes(pixels if pixels.ndim == 3 else np.moveaxis(pixels, -1, 1), preprocess)


def normalise_planes(planes: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """:meth:`Preprocess.normalise` for channels-first pixels, to the same bits, with one allocation."""
    if planes.ndim == 3:
        count, height, width = planes.shape
        inputs = np.empty((count, preprocess.channels, height, width), np.float32)
        inputs[:] = planes[:, None]
    else:
        inputs = planes.astype(np.float32, order="C")
    inputs /= np.float32(255)
    inputs -= np.asarray(preprocess.mean, np.float32).reshape(-1, 1, 1)
    inputs /= np.asarray(preprocess.std, np.float32).reshape(-1, 1, 1)
    return inputs


def eval_batches(
    split: Split, preprocess: AnyPreprocess, *, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """``(inputs, labels, indices)`` of at most ``batch_size`` samples, in order: the last may be smaller.

    Shapes: as :func:`eval_inputs`, int64 ``(n,)``, int64 ``(n,)`` (source indices).
    """
    for start in range(0, len(split), batch_size):
        indices = split.indices[start : start + batch_size]
        yield eval_inputs(split.source, preprocess, indices), split.source.labels[indices], indices
