"""Attention transfer: where the student's activations are large follows where the teacher's are.

Sergey Zagoruyko, Nikos Komodakis, "Paying More Attention to Attention: Improving the Performance of
Convolutional Neural Networks via Attention Transfer", ICLR 2017, arXiv 1612.03928, section 3.1, eq. 2, with
the map F_sum^2 and p = 2.

Deviations: the paper takes the L2 distance of the two unit maps, whose gradient is undefined where they
agree; here it is squared, as in the authors' code. That code averages over the positions, here they are
summed, so that a layer's term lies in [0, 2] (it is 2 - 2 cos) and the weight does not depend on the
resolution. The paper's factor beta / 2 is the recipe's weight. Maps of different sizes: each is brought to
the smaller height and width by adaptive average pooling, before it is normalised; the paper has equal sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.distill.objectives.base import Needs, Outputs, check_pairs, layer_names
from edgekd.errors import PreconditionError, fault
from edgekd.recipe_stages import ObjectiveRecipe, TrainRecipe


def attention_map(features: Tensor) -> Tensor:
    """Sum of squares over the channels.

    Args:
        features: ``(batch, channels, height, width)`` or ``(batch, tokens, channels)``.

    Returns:
        float32 ``(batch, height, width)`` or ``(batch, tokens)``.
    """
    return features.float().square().sum(dim=1 if features.ndim == 4 else 2)


def attention_transfer_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], *, layers: list[tuple[str, str]] | None = None
) -> Tensor:
    """``sum over layers of mean over batch of ||unit(map_s) - unit(map_t)||^2``.

    Args:
        student, teacher: one tensor a layer, ``(batch, channels, height, width)`` both, with any channels and
            sizes, or ``(batch, tokens, channels)`` both, with equally many tokens.
        layers: (student, teacher) module names, for the message.

    Returns:
        A float32 scalar, 0 where all maps are proportional.

    Raises:
        PreconditionError: no features, or a pair of which no maps can be compared.
    """
    check_pairs(list(student), list(teacher), "attention")
    terms = []
    for position, (ours, theirs) in enumerate(zip(student, teacher, strict=True)):
        spatial = ours.ndim == theirs.ndim == 4
        if not spatial and not (ours.ndim == theirs.ndim == 3 and ours.shape[1] == theirs.shape[1]):
            raise PreconditionError(
                fault(
                    "objectives.attention",
                    f"cannot compare {layer_names(layers, position)}",
                    got=f"{tuple(ours.shape)} and {tuple(theirs.shape)}",
                    allowed="(batch, channels, height, width) twice, or (batch, tokens, channels) twice",
                )
            )
        map_s, map_t = attention_map(ours), attention_map(theirs.detach())
        if spatial and map_s.shape != map_t.shape:
            size = (min(map_s.shape[1], map_t.shape[1]), min(map_s.shape[2], map_t.shape[2]))
            map_s, map_t = (F.adaptive_avg_pool2d(each, size) for each in (map_s, map_t))
        difference = F.normalize(map_s.flatten(1)) - F.normalize(map_t.flatten(1))
        terms.append(difference.square().sum(dim=1).mean())
    return torch.stack(terms).sum()


@dataclass(frozen=True)
class AttentionTransfer:
    needs: ClassVar[Needs] = Needs(features=True)

    @classmethod
    def build(cls, recipe: ObjectiveRecipe, train: TrainRecipe) -> AttentionTransfer:
        return cls()

    def __call__(self, outputs: Outputs) -> Tensor:
        return attention_transfer_loss(
            outputs.student_features, outputs.teacher_features, layers=outputs.layers
        )
