"""Hidden states: each of the student's layers answers what a layer of the teacher answers, token by token.

Xiaoqi Jiao et al., "TinyBERT: Distilling BERT for Natural Language Understanding", Findings of EMNLP 2020,
arXiv 1909.10351, eq. 8 (mean squared error behind a linear map); the cosine as in Victor Sanh et al.,
"DistilBERT", 2019, arXiv 1910.01108, section 3.

Deviations: the linear map exists only where the widths differ, and begins as the identity on the channels that
both have (TinyBERT always has one, drawn at random). Padding does not count. The mean runs over each sample's
tokens, then over the samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.distill.objectives.base import Needs, Outputs, check_pairs, layer_names
from edgekd.distill.relations import mean_over_tokens
from edgekd.errors import PreconditionError, fault
from edgekd.recipe_stages import ObjectiveRecipe, TrainRecipe

Distance = Literal["mse", "cosine"]


def as_tokens(features: Tensor) -> Tensor:
    """``(batch, channels, height, width)`` or ``(batch, tokens, channels)`` to float32 of the latter form."""
    return (features.flatten(2).transpose(1, 2) if features.ndim == 4 else features).float()


def width_of(shape: Sequence[int]) -> int:
    """Channels of a map's or of tokens' shape."""
    return shape[1] if len(shape) == 4 else shape[-1]


def token_distance(student: Tensor, teacher: Tensor, distance: Distance) -> Tensor:
    """``(batch, tokens, channels)`` twice to ``(batch, tokens)``: mean squared error, or 1 minus the cosine."""
    if distance == "cosine":
        return 1 - F.cosine_similarity(student, teacher, dim=-1)
    return (student - teacher).square().mean(dim=-1)


def new_adapter(ours: int, theirs: int) -> nn.Linear:
    """A linear map from the student's channels to the teacher's, the identity on those that both have."""
    adapter = nn.Linear(ours, theirs)
    nn.init.eye_(adapter.weight)
    nn.init.zeros_(adapter.bias)
    return adapter


class HiddenStates:
    """
    Attributes:
        adapters: after :meth:`fit`, by position of the pair; trained along with the student.
    """

    needs: ClassVar[Needs] = Needs(features=True)
    name: ClassVar[str] = "hidden"

    def __init__(self, distance: Distance = "mse") -> None:
        self.distance = distance
        self.adapters: dict[int, nn.Linear] = {}

    @classmethod
    def build(cls, recipe: ObjectiveRecipe, train: TrainRecipe) -> HiddenStates:
        return cls(recipe.distance or "mse")

    def fit(self, shapes: Sequence[tuple[Sequence[int], Sequence[int]]]) -> dict[str, nn.Module]:
        """Make the linear maps that the pairs of (student, teacher) shapes need."""
        widths = [(width_of(ours), width_of(theirs)) for ours, theirs in shapes]
        self.adapters = {
            position: new_adapter(ours, theirs)
            for position, (ours, theirs) in enumerate(widths)
            if ours != theirs
        }
        return {str(position): adapter for position, adapter in self.adapters.items()}

    def __call__(self, outputs: Outputs) -> Tensor:
        student, teacher = outputs.student_features, outputs.teacher_features
        check_pairs(student, teacher, self.name)
        terms = []
        for position, (ours, theirs) in enumerate(zip(student, teacher, strict=True)):
            own, target = as_tokens(ours), as_tokens(theirs.detach())
            if position in self.adapters:
                own = self.adapters[position](own)
            if own.shape != target.shape:
                raise PreconditionError(
                    fault(f"objectives.{self.name}", f"cannot compare {layer_names(outputs.layers, position)}",
                          got=f"{tuple(ours.shape)} and {tuple(theirs.shape)}",
                          allowed="equally many positions")
                )  # fmt: skip
            tokens = outputs.tokens if ours.ndim == 3 else None
            terms.append(mean_over_tokens(token_distance(own, target, self.distance), tokens))
        return torch.stack(terms).mean()
