"""MiniLMv2: how queries, keys and values relate among themselves, over heads that both networks can form.

Wenhui Wang, Hangbo Bao, Shaohan Huang, Li Dong, Furu Wei, "MiniLMv2: Multi-Head Self-Attention Relation
Distillation for Compressing Pretrained Transformers", Findings of ACL 2021, arXiv 2012.15828, eq. 5 to 7 with
the three relations Q-Q, K-K and V-V, weighted alike.

The heads of a network are joined and cut anew into relation heads, so head counts and widths may differ. The
paper takes 48 for base models; here it is the largest number up to 48 that divides both widths, unless the
recipe's ``relation_heads`` names one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgekd.distill.objectives.base import Needs, Outputs, check_attention
from edgekd.distill.relations import log_relation, relation_divergence, split_heads
from edgekd.errors import PreconditionError, fault
from edgekd.recipe_stages import ObjectiveRecipe, TrainRecipe

MOST_HEADS = 48


def relation_heads(ours: int, theirs: int) -> int:
    """The most relation heads, up to 48, that cut both widths into equal parts."""
    common = math.gcd(ours, theirs)
    return max(count for count in range(1, min(MOST_HEADS, common) + 1) if common % count == 0)


def minilm_v2_loss(
    student: list[Tensor], teacher: list[Tensor], *, heads: int | None = None, tokens: Tensor | None = None
) -> Tensor:
    """``mean over Q, K, V of KL(R_t || R_s)``, each averaged over relation heads, real tokens and samples.

    Args:
        student, teacher: query, key and value, ``(batch, tokens, width)`` each.
        heads: relation heads; None chooses.
        tokens: bool ``(batch, tokens)``, false on padding.

    Raises:
        PreconditionError: relation heads that do not divide a width.
    """
    terms = []
    for ours, theirs in zip(student, teacher, strict=True):
        widths = (ours.shape[-1], theirs.shape[-1])
        count = heads or relation_heads(*widths)
        if widths[0] % count or widths[1] % count:
            raise PreconditionError(
                fault("objectives.minilm-v2.relation_heads", "does not divide the widths", got=count,
                      allowed=f"divisors of {math.gcd(*widths)}")
            )  # fmt: skip
        own, target = split_heads(ours, count), split_heads(theirs.detach(), count)
        terms.append(
            relation_divergence(log_relation(own, own, tokens), log_relation(target, target, tokens), tokens)
        )
    return torch.stack(terms).mean()


@dataclass(frozen=True)
class MiniLMv2:
    needs: ClassVar[Needs] = Needs(features=True)
    heads: int | None = None

    @classmethod
    def build(cls, recipe: ObjectiveRecipe, train: TrainRecipe) -> MiniLMv2:
        return cls(recipe.relation_heads)

    def __call__(self, outputs: Outputs) -> Tensor:
        check_attention(outputs, "minilm-v2")
        return minilm_v2_loss(
            outputs.student_features, outputs.teacher_features, heads=self.heads, tokens=outputs.tokens
        )
