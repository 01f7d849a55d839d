"""Cross-entropy and distillation where each class is a question of its own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from edgekd.distill.loss import DistillationLoss
from edgekd.distill.objectives.base import Outputs
from edgekd.distill.objectives.ce import binary_cross_entropy
from edgekd.distill.objectives.kd import binary_kd_loss
from edgekd.errors import PreconditionError
from edgekd.recipe_stages import DistillStage

torch.manual_seed(0)
STUDENT, TEACHER = torch.randn(6, 4), torch.randn(6, 4)
TARGETS = (torch.rand(6, 4) > 0.6).float()


def test_cross_entropy_is_that_of_each_class():
    expected = F.binary_cross_entropy_with_logits(STUDENT, TARGETS) * 4
    assert torch.allclose(binary_cross_entropy(STUDENT, TARGETS), expected)
    smooth = binary_cross_entropy(STUDENT, TARGETS, label_smoothing=0.2)
    assert torch.allclose(smooth, F.binary_cross_entropy_with_logits(STUDENT, TARGETS * 0.8 + 0.1) * 4)


def test_distillation_is_the_divergence_of_bernoullis():
    p, q = (TEACHER / 2).sigmoid(), (STUDENT / 2).sigmoid()
    kl = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(1).mean() * 4
    assert torch.allclose(binary_kd_loss(STUDENT, TEACHER, temperature=2.0), kl, atol=1e-6)
    assert binary_kd_loss(TEACHER, TEACHER, temperature=3.0).abs() < 1e-6
    assert torch.isfinite(binary_kd_loss(1e4 * STUDENT, -1e4 * TEACHER, temperature=1.0))


def test_no_class_is_played_against_another():
    """A softmax would: raising every logit alike leaves it as it was."""
    loss = DistillationLoss(
        DistillStage(objectives={"ce": {}, "kd": {"temperature": 1}}).objectives, DistillStage()
    )
    batch = {"teacher_logits": TEACHER, "targets": TARGETS, "labels": torch.zeros(6, dtype=torch.int64)}
    one, parts = loss(Outputs(student_logits=STUDENT, several=True, **batch))
    other, raised = loss(Outputs(student_logits=STUDENT + 3, several=True, **batch))
    assert not torch.allclose(one, other)
    assert all(not torch.allclose(parts[name], raised[name]) for name in ("ce", "kd"))
    with pytest.raises(PreconditionError, match="needs labels"):
        loss(Outputs(student_logits=STUDENT, several=True, **{**batch, "targets": None}))
