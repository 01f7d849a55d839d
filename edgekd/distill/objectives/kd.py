"""Knowledge distillation: the student's softened distribution follows the teacher's.

Geoffrey Hinton, Oriol Vinyals, Jeff Dean, "Distilling the Knowledge in a Neural Network", NIPS 2014 Deep
Learning Workshop, arXiv 1503.02531, section 2.

The paper writes the cross-entropy with the soft targets; KL differs from it by the teacher's entropy, a
constant for the student, so the gradients are the same and the minimum is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from edgekd.distill.objectives.base import Needs, Outputs, required
from edgekd.errors import PreconditionError, fault
from edgekd.recipe_stages import ObjectiveRecipe, TrainRecipe

DEFAULT_TEMPERATURE = 4.0


def kd_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """``T^2 * KL(softmax(teacher / T) || softmax(student / T))``, summed over classes, mean over batch.

    The gradient of the KL term shrinks with 1/T^2; the factor keeps its size, so that the weight against
    other objectives does not depend on T.

    Args:
        student_logits: ``(batch, classes)``.
        teacher_logits: ``(batch, classes)``, logits or log-probabilities: they differ by a constant in each
            row, which the softmax at any temperature removes.
        temperature: T > 0.

    Returns:
        A float32 scalar, 0 where the two distributions are equal.

    Raises:
        PreconditionError: the two shapes differ.
    """
    if student_logits.shape != teacher_logits.shape:
        raise PreconditionError(
            fault(
                "objectives.kd",
                "student and teacher answer with different shapes",
                got=f"{tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}",
                fix="both must have the data's classes",
            )
        )
    student = F.log_softmax(student_logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.detach().float() / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def binary_kd_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """:func:`kd_loss` where each class is a question of its own: KL of two Bernoulli distributions, summed.

    Args and Returns: as :func:`kd_loss`; ``teacher_logits`` must be logits, not log-probabilities.
    """
    student, teacher = student_logits.float() / temperature, teacher_logits.detach().float() / temperature
    yes = teacher.sigmoid() * (F.logsigmoid(teacher) - F.logsigmoid(student))
    no = (-teacher).sigmoid() * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return (yes + no).sum(dim=1).mean() * temperature**2


@dataclass(frozen=True)
class KnowledgeDistillation:
    temperature: float = DEFAULT_TEMPERATURE
    needs: ClassVar[Needs] = Needs(teacher_logits=True)

    @classmethod
    def build(cls, recipe: ObjectiveRecipe, train: TrainRecipe) -> KnowledgeDistillation:
        return cls(temperature=recipe.temperature or DEFAULT_TEMPERATURE)

    def __call__(self, outputs: Outputs) -> Tensor:
        teacher_logits = required(outputs.teacher_logits, "kd", "the teacher's logits")
        loss = binary_kd_loss if outputs.several else kd_loss
        return loss(outputs.student_logits, teacher_logits, temperature=self.temperature)
