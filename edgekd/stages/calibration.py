"""Which real samples calibrate and which judge, and the check that they are usable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from edgekd.data.hashing import permutation
from edgekd.data.loader import eval_loader
from edgekd.data.source import Split
from edgekd.errors import DataError, fault
from edgekd.preprocess_text import AnyPreprocess
from edgekd.stages.base import StageContext

_BATCH = 32
How = Literal["even", "classes", "random"]


@dataclass
class Calibration:
    """Batches ``(batch, ...)`` in order, their labels ``(samples,)`` int64 (-1: unknown), and how they were
    chosen, for the report."""

    batches: list[Tensor]
    labels: Tensor
    facts: dict[str, Any]


def choose_samples(split: Split, samples: int, how: How, seed: int) -> np.ndarray:
    """Ascending positions in ``split`` of at most ``samples`` samples.

    ``even`` takes every k-th sample, which spreads over the classes of a listing that is ordered by class;
    ``classes`` takes equally many of each labelled class; ``random`` is seeded.
    """
    count = min(samples, len(split))
    if how == "even":
        return np.unique(np.linspace(0, len(split) - 1, count).round().astype(np.int64))
    order = permutation(seed, len(split))
    if how == "classes":
        labels = split.labels[order]
        rank = np.zeros(len(labels), np.int64)
        for label in np.unique(labels):
            of_class = labels == label
            rank[of_class] = np.arange(of_class.sum())
        order = order[np.argsort(rank, kind="stable")]
    return np.sort(order[:count])


def calibration_batches(context: StageContext, samples: int, how: How) -> Calibration:
    """Training samples as the deployed model sees them.

    Raises:
        DataError: a sample holds NaN or infinity, or has another shape; names it.
    """
    return _read(context, context.data.train, samples, how)


def judging_batches(context: StageContext, samples: int) -> Calibration:
    """Validation samples, spread evenly: what configurations are compared on. Raises as above."""
    return _read(context, context.data.validation, samples, "even")


def _read(context: StageContext, split: Split, samples: int, how: How) -> Calibration:
    chosen = choose_samples(split, samples, how, context.seed)
    part = Split(split.name, split.source, split.indices[chosen])
    loader = eval_loader(part, context.preprocess, batch_size=_BATCH, workers=0)
    batches, labels = [], []
    for batch in loader:
        check_batch(
            batch["inputs"], [part.source.sample_id(int(i)) for i in batch["indices"]], context.preprocess
        )
        batches.append(batch["inputs"])
        labels.append(
            batch["labels"] if batch["labels"].ndim == 1 else torch.full((len(batch["inputs"]),), -1)
        )
    facts = {"samples": len(part), "of": len(split), "split": split.name, "chosen": how, "seed": context.seed}
    if known := np.unique(part.labels[part.labels >= 0]).size:
        facts["classes_seen"] = int(known)
    return Calibration(batches, torch.cat(labels), facts)


def check_batch(inputs: Tensor, names: list[str], preprocess: AnyPreprocess) -> None:
    """
    Raises:
        DataError: a sample of ``inputs`` ``(batch, ...)`` is not finite or not of the model's input shape.
    """
    expected = preprocess.example(1).shape[1:]
    fixed = inputs.is_floating_point()  # token ids are as long as their text
    if fixed and tuple(inputs.shape[1:]) != tuple(expected):
        raise DataError(
            fault(f"calibration: {names[0]}", "has the wrong shape", got=tuple(inputs.shape[1:]),
                  allowed=str(tuple(expected)))
        )  # fmt: skip
    broken = (
        ~torch.isfinite(inputs).flatten(1).all(1) if fixed else torch.zeros(len(inputs), dtype=torch.bool)
    )
    if broken.any():
        position = int(broken.nonzero()[0])
        values = int((~torch.isfinite(inputs[position])).sum())
        raise DataError(
            fault(f"calibration: {names[position]}", "holds values that are not finite", got=f"{values} values",
                  fix="remove or repair the sample")
        )  # fmt: skip
