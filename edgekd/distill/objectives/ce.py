"""Cross-entropy with the labels, or with mixup's soft targets; no teacher.

Label smoothing: Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception Architecture for
Computer Vision", CVPR 2016, arXiv 1512.00567, section 7: q' = (1 - e) q + e / classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from edgekd.distill.objectives.base import Needs, Outputs, required
from edgekd.recipe_stages import ObjectiveRecipe, TrainRecipe

UNLABELLED = -1


def cross_entropy(logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """``-sum_c q'_c log softmax(logits)_c``, averaged over the samples that have a label.

    Args:
        logits: ``(batch, classes)``.
        target: int64 ``(batch,)`` with -1 for "no label", or float ``(batch, classes)``, rows that sum to 1.
        label_smoothing: ``e`` above; applied to soft targets too.

    Returns:
        A float32 scalar; 0 for a batch without any label.
    """
    logits = logits.float()
    if target.is_floating_point():
        return F.cross_entropy(logits, target.float(), label_smoothing=label_smoothing)
    total = F.cross_entropy(
        logits, target, ignore_index=UNLABELLED, reduction="sum", label_smoothing=label_smoothing
    )
    return total / (target != UNLABELLED).sum().clamp(min=1)


def binary_cross_entropy(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """``-t' log s(z) - (1 - t') log (1 - s(z))``, summed over classes, mean over the batch; float32 scalar.

    Args:
        logits, targets: ``(batch, classes)``; targets 0 or 1, smoothed to ``t' = (1 - e) t + e / 2``.
    """
    smooth = targets.float() * (1 - label_smoothing) + label_smoothing / 2
    loss = F.binary_cross_entropy_with_logits(logits.float(), smooth, reduction="none")
    return loss.sum(dim=1).mean()


@dataclass(frozen=True)
class CrossEntropy:
    label_smoothing: float = 0.0
    needs: ClassVar[Needs] = Needs(labels=True)

    @classmethod
    def build(cls, recipe: ObjectiveRecipe, train: TrainRecipe) -> CrossEntropy:
        return cls(label_smoothing=train.label_smoothing)

    def __call__(self, outputs: Outputs) -> Tensor:
        target = outputs.labels if outputs.targets is None else outputs.targets
        if outputs.several:
            targets = required(outputs.targets, "ce", "labels")
            return binary_cross_entropy(outputs.student_logits, targets, label_smoothing=self.label_smoothing)
        return cross_entropy(
            outputs.student_logits, required(target, "ce", "labels"), label_smoothing=self.label_smoothing
        )
