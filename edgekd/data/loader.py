"""Loaders for training and for measuring.

A batch is a dict: ``inputs`` float32 ``(n, channels, height, width)`` or token ids int64 ``(n, longest)``,
``labels`` int64 ``(n,)`` (-1 is unknown), ``indices`` int64 ``(n,)`` (positions in the source;
``source.sample_id`` names them) and, with mixup or CutMix and known labels or with several labels a text,
``targets`` float32 ``(n, classes)``.

The augmentation of sample ``i`` depends on ``(seed, slot, i)`` alone; mixing on ``(seed, slot)`` and the
batch's first sample, and with it the order follows from ``(seed, slot)``. So what a teacher said about a
batch can be stored and is valid again, whatever the loader processes. Texts are not augmented; the batches of
an epoch hold texts of like length, and which they are follows from the order's seed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from edgekd.data.array_augment import augment_arrays, is_vectorised
from edgekd.data.batches import eval_inputs, is_direct
from edgekd.data.hashing import fold, fold_array, permutation
from edgekd.data.image_augment import ImageAugment, kept_generators
from edgekd.data.mixing import is_mixing, mix_batch
from edgekd.data.source import ImageSource, Split, is_text
from edgekd.data.tokens import bucketed, tokens_of
from edgekd.errors import RecipeError, fault
from edgekd.preprocess import Preprocess
from edgekd.preprocess_text import AnyPreprocess, TextPreprocess
from edgekd.recipe_stages import AugmentRecipe

Batch = dict[str, torch.Tensor]
_MIX = 0x6D6978  # keeps the batch's stream apart from its first sample's
_WORTH_WORKERS = 1024  # samples below which starting processes costs more than they save


class _Batches(TorchDataset[Batch]):
    """Whole batches by positions in a split; torch's loader calls ``__getitems__`` once a batch."""

    def __init__(self, split: Split, preprocess: AnyPreprocess) -> None:
        self.split = split
        self.preprocess = preprocess

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, position: int) -> Batch:
        return self.__getitems__([position])

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        indices = self.split.indices[np.asarray(positions, np.int64)]
        source = self.split.source
        batch = {
            "inputs": self._inputs(indices),
            "labels": torch.from_numpy(source.labels[indices]),
            "indices": torch.from_numpy(indices),
        }
        if is_text(source) and source.targets is not None:
            batch["targets"] = torch.from_numpy(source.targets[indices])
        return batch

    def _inputs(self, indices: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(eval_inputs(self.split.source, self.preprocess, indices))


class _TrainBatches(_Batches):
    def __init__(
        self, split: Split, preprocess: Preprocess, augment: AugmentRecipe, seed: int, slot: int
    ) -> None:
        super().__init__(split, preprocess)
        self.images = preprocess
        self.augment = augment
        self.stream = fold(seed, slot)
        self.vectorised = is_direct(split.source, preprocess) and is_vectorised(augment)
        self.per_image = ImageAugment(preprocess, augment)
        if not self.vectorised:
            self.per_image.build()  # a recipe that timm refuses is told here, not in a loader process

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        batch = super().__getitems__(positions)
        if is_mixing(self.augment):
            state = fold(self.stream, _MIX, int(batch["indices"][0]))
            classes = len(self.split.source.classes)
            targets = mix_batch(batch["inputs"], batch["labels"], classes, self.augment, state)
            if targets is not None:
                batch["targets"] = targets
        return batch

    def _inputs(self, indices: np.ndarray) -> torch.Tensor:
        source = self.split.source
        states = fold_array(self.stream, indices)
        if self.vectorised and is_direct(source, self.images):
            return torch.from_numpy(augment_arrays(source.pixels[indices], states, self.images, self.augment))
        with kept_generators():
            pairs = zip(indices.tolist(), states.tolist(), strict=True)
            images = cast(ImageSource, source)
            return torch.stack([self.per_image(images.image(index), state) for index, state in pairs])


class _Order(Sampler[int]):
    def __init__(self, positions: np.ndarray) -> None:
        self.positions = positions

    def __iter__(self) -> Iterator[int]:
        return iter(self.positions.tolist())

    def __len__(self) -> int:
        return len(self.positions)


def train_loader(
    split: Split,
    preprocess: AnyPreprocess,
    augment: AugmentRecipe,
    *,
    batch_size: int,
    seed: int,
    slot: int,
    order_seed: int,
    workers: int | None,
    drop_last: bool = True,
) -> DataLoader[Batch]:
    """One pass over ``split``, shuffled; images augmented, texts in batches of like length.

    Args:
        slot: which of the augmentations; the same slot replays the same pixels.
        order_seed: the order of the samples; with mixup or CutMix the order follows from ``(seed, slot)``.
        workers: loader processes; None chooses by format and cores.
        drop_last: leave out the last, smaller batch. A split smaller than ``batch_size`` is one batch.

    Raises:
        RecipeError: ``augment.auto_augment`` is not timm's, or augmentation is asked for texts.
    """
    if isinstance(preprocess, TextPreprocess):
        require_no_augmentation(augment, "augment")
        size = min(batch_size, len(split))
        lengths = tokens_of(split.source, preprocess).lengths(split.indices)
        order = bucketed(lengths, permutation(order_seed, len(split)), size)
        return _loader(_Batches(split, preprocess), _Order(order), size, 0, drop_last)
    batches = _TrainBatches(split, preprocess, augment, seed, slot)
    order = permutation(batches.stream if is_mixing(augment) else order_seed, len(split))
    if workers is None:
        workers = _auto_workers(batches.vectorised, len(split))
    return _loader(batches, _Order(order), min(batch_size, len(split)), workers, drop_last)


def eval_loader(
    split: Split,
    preprocess: AnyPreprocess,
    *,
    batch_size: int,
    workers: int | None,
    by_length: bool = False,
) -> DataLoader[Batch]:
    """One pass over ``split``, every sample once, through the deployed preprocessing.

    Args:
        by_length: texts from short to long, so that little is padded; :func:`in_order` undoes it. Without it,
            and for images, in order.
    """
    batches = _Batches(split, preprocess)
    if isinstance(preprocess, TextPreprocess):
        lengths = tokens_of(split.source, preprocess).lengths(split.indices)
        order = np.argsort(lengths, kind="stable") if by_length else np.arange(len(split))
        return _loader(batches, _Order(order), batch_size, 0, False)
    if workers is None:
        workers = _auto_workers(is_direct(split.source, preprocess), len(split))
    return _loader(batches, _Order(np.arange(len(split))), batch_size, workers, False)


def in_order(answers: np.ndarray, loader: DataLoader[Batch]) -> np.ndarray:
    """What was computed from all batches of an :func:`eval_loader`, in the order of its split."""
    order = loader.sampler
    return answers[np.argsort(order.positions)] if isinstance(order, _Order) else answers


def require_no_augmentation(augment: AugmentRecipe, where: str) -> None:
    """
    Raises:
        RecipeError: a setting that is not the default; texts are never augmented.
    """
    for name, field in AugmentRecipe.model_fields.items():
        value = getattr(augment, name)
        if value != field.default:
            raise RecipeError(fault(f"{where}.{name}", "texts are not augmented", got=value, fix="remove it"))


def _loader(
    batches: _Batches, order: _Order, batch_size: int, workers: int, drop_last: bool
) -> DataLoader[Batch]:
    return DataLoader(
        batches,
        batch_size=batch_size,
        sampler=order,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=torch.cuda.is_available(),
        drop_last=drop_last,
        # The loader draws a base seed; without a generator of its own it would draw from training's.
        generator=torch.Generator().manual_seed(0),
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def _auto_workers(vectorised: bool, samples: int) -> int:
    if vectorised or samples < _WORTH_WORKERS:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
