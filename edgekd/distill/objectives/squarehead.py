"""SquareHead: each layer's features follow the dense model's, normalised by that layer's own magnitude.

Eldar Kurtic, Denis Kuznedelev, Elias Frantar, Michael Goin, Dan Alistarh, "Sparse Fine-tuning for Inference
Acceleration of Large Language Models", 2023, arXiv 2310.06927, section 3.

The paper adds it to the cross-entropy with equal weight and masks padded tokens; here the weights are the
recipe's, images have no padding, and the layers are the pairs that the recipe or the automatic choice names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgekd.distill.objectives.base import Needs, Outputs, check_pairs, layer_names
from edgekd.errors import PreconditionError, fault
from edgekd.recipe_stages import ObjectiveRecipe, TrainRecipe

EPSILON = 1e-6


def squarehead_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], *, layers: list[tuple[str, str]] | None = None
) -> Tensor:
    """``sum over layers of mean((s - t)^2) / (mean(t^2) + 1e-6)``; both means run over all elements.

    Args:
        student, teacher: one tensor a layer; the two of a pair have equal shapes.
        layers: (student, teacher) module names, for the message.

    Returns:
        A float32 scalar, 0 where all features are equal.

    Raises:
        PreconditionError: no features, or a pair of different shapes.
    """
    check_pairs(list(student), list(teacher), "squarehead")
    terms = []
    for position, (ours, theirs) in enumerate(zip(student, teacher, strict=True)):
        if ours.shape != theirs.shape:
            raise PreconditionError(
                fault(
                    "objectives.squarehead",
                    f"needs equal shapes; {layer_names(layers, position)}",
                    got=f"{tuple(ours.shape)} and {tuple(theirs.shape)}",
                    fix="name equal layers, or use kd or attention, which take different widths",
                )
            )
        target = theirs.detach().float()
        terms.append((ours.float() - target).square().mean() / (target.square().mean() + EPSILON))
    return torch.stack(terms).sum()


@dataclass(frozen=True)
class SquareHead:
    needs: ClassVar[Needs] = Needs(features=True)

    @classmethod
    def build(cls, recipe: ObjectiveRecipe, train: TrainRecipe) -> SquareHead:
        return cls()

    def __call__(self, outputs: Outputs) -> Tensor:
        return squarehead_loss(outputs.student_features, outputs.teacher_features, layers=outputs.layers)
