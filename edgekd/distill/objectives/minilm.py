"""MiniLM: where the teacher's last layer looks, and how its values relate.

Wenhui Wang, Furu Wei, Li Dong, Hangbo Bao, Nan Yang, Ming Zhou, "MiniLM: Deep Self-Attention Distillation for
Task-Agnostic Compression of Pre-Trained Transformers", NeurIPS 2020, arXiv 2002.10957, eq. 5 to 8: the KL of
the attention distributions plus the KL of the value relations softmax(V V^T / sqrt(d)).

Needs equally many heads; their widths may differ. Attention is computed from the outputs of the query and key
layers: biases that a model adds to its scores (relative positions) are left out on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from edgekd.distill.objectives.base import Needs, Outputs, check_attention
from edgekd.distill.relations import log_relation, relation_divergence, split_heads
from edgekd.errors import PreconditionError, fault
from edgekd.recipe_stages import ObjectiveRecipe, TrainRecipe


def minilm_loss(
    student: list[Tensor], teacher: list[Tensor], *, heads: tuple[int, int], tokens: Tensor | None = None
) -> Tensor:
    """``KL(A_t || A_s) + KL(VR_t || VR_s)``, each averaged over heads, real tokens and samples.

    Args:
        student, teacher: query, key and value, ``(batch, tokens, width)`` each.
        heads: of the student's and the teacher's attention.
        tokens: bool ``(batch, tokens)``, false on padding.

    Raises:
        PreconditionError: head counts that differ.
    """
    if heads[0] != heads[1]:
        raise PreconditionError(
            fault("objectives.minilm", "needs equally many attention heads", got=f"student {heads[0]}, "
                  f"teacher {heads[1]}", fix="use minilm-v2, which compares any")
        )  # fmt: skip
    (q_s, k_s, v_s), (q_t, k_t, v_t) = (
        [split_heads(each, count) for each in side]
        for side, count in zip((student, [each.detach() for each in teacher]), heads, strict=True)
    )
    attention = relation_divergence(log_relation(q_s, k_s, tokens), log_relation(q_t, k_t, tokens), tokens)
    values = relation_divergence(log_relation(v_s, v_s, tokens), log_relation(v_t, v_t, tokens), tokens)
    return attention + values


@dataclass(frozen=True)
class MiniLM:
    needs: ClassVar[Needs] = Needs(features=True)

    @classmethod
    def build(cls, recipe: ObjectiveRecipe, train: TrainRecipe) -> MiniLM:
        return cls()

    def __call__(self, outputs: Outputs) -> Tensor:
        heads = check_attention(outputs, "minilm")
        return minilm_loss(
            outputs.student_features, outputs.teacher_features, heads=heads, tokens=outputs.tokens
        )
