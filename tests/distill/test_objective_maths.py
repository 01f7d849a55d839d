"""What is particular to one objective."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from edgekd.distill.objectives.attention_transfer import attention_map, attention_transfer_loss
from edgekd.distill.objectives.base import Outputs
from edgekd.distill.objectives.ce import CrossEntropy, cross_entropy
from edgekd.distill.objectives.kd import kd_loss
from edgekd.distill.objectives.squarehead import squarehead_loss
from edgekd.errors import PreconditionError

torch.manual_seed(0)
LOGITS, TEACHER = torch.randn(8, 6), 3 * torch.randn(8, 6)


def test_ce_takes_soft_targets_of_one_hot_rows_like_labels():
    labels = torch.arange(8) % 6
    for smoothing in (0.0, 0.2):
        hard = cross_entropy(LOGITS, labels, label_smoothing=smoothing)
        soft = cross_entropy(LOGITS, F.one_hot(labels, 6).float(), label_smoothing=smoothing)
        assert soft.item() == pytest.approx(hard.item(), rel=1e-6)


def test_ce_prefers_mixups_targets_to_the_labels():
    labels = torch.arange(8) % 6
    targets = 0.7 * F.one_hot(labels, 6).float() + 0.3 * F.one_hot((labels + 1) % 6, 6).float()
    mixed = CrossEntropy()(Outputs(student_logits=LOGITS, labels=labels, targets=targets))
    one, other = cross_entropy(LOGITS, labels), cross_entropy(LOGITS, (labels + 1) % 6)
    assert mixed.item() == pytest.approx((0.7 * one + 0.3 * other).item(), rel=1e-5)


def test_ce_averages_over_the_labelled_samples_alone():
    labels = torch.tensor([1, -1, 2, -1, -1, 0, -1, -1])
    kept = labels >= 0
    value = cross_entropy(LOGITS, labels, label_smoothing=0.1)
    assert value.item() == pytest.approx(
        cross_entropy(LOGITS[kept], labels[kept], label_smoothing=0.1).item()
    )


def test_ce_of_a_batch_without_labels_is_zero_and_not_nan():
    logits = LOGITS.clone().requires_grad_()
    value = cross_entropy(logits, torch.full((8,), -1))
    value.backward()
    assert value.item() == 0 and (logits.grad == 0).all()


def test_kd_takes_log_probabilities_for_logits_at_any_temperature():
    for temperature in (0.5, 1.0, 4.0):
        from_logits = kd_loss(LOGITS, TEACHER, temperature=temperature)
        from_log_probabilities = kd_loss(LOGITS, TEACHER.log_softmax(1), temperature=temperature)
        assert from_log_probabilities.item() == pytest.approx(from_logits.item(), rel=1e-5)


def test_kd_gradient_keeps_its_size_over_the_temperature():
    """Hinton et al., eq. 4: at high T the gradient is (z_s - z_t) / classes, centred; T^2 keeps it there."""
    sizes = []
    for temperature in (50.0, 200.0):
        logits = LOGITS.clone().requires_grad_()
        kd_loss(logits, TEACHER, temperature=temperature).backward()
        sizes.append(logits.grad)
    centred = lambda z: z - z.mean(dim=1, keepdim=True)
    expected = (centred(LOGITS) - centred(TEACHER)) / 6 / 8
    torch.testing.assert_close(sizes[1], expected, rtol=0.05, atol=1e-3)
    torch.testing.assert_close(sizes[0], sizes[1], rtol=0.15, atol=2e-3)


def test_kd_refuses_other_classes():
    with pytest.raises(PreconditionError, match=r"\(8, 6\) and \(8, 10\)"):
        kd_loss(LOGITS, torch.randn(8, 10), temperature=1.0)


def test_squarehead_does_not_depend_on_the_layers_magnitude():
    student, teacher = torch.randn(4, 3, 5, 5), torch.randn(4, 3, 5, 5)
    one = squarehead_loss([student], [teacher])
    assert squarehead_loss([100 * student], [100 * teacher]).item() == pytest.approx(one.item(), rel=1e-4)
    assert squarehead_loss([torch.zeros(4, 3)], [torch.ones(4, 3)]).item() == pytest.approx(1.0, rel=1e-5)


def test_squarehead_refuses_unequal_shapes_and_names_the_layers():
    with pytest.raises(PreconditionError) as caught:
        squarehead_loss(
            [torch.randn(2, 4), torch.randn(2, 8, 7, 7)],
            [torch.randn(2, 4), torch.randn(2, 16, 7, 7)],
            layers=[("fc", "head"), ("layer3", "stages.2")],
        )
    text = str(caught.value)
    assert "student 'layer3', teacher 'stages.2'" in text
    assert "(2, 8, 7, 7) and (2, 16, 7, 7)" in text and "\n" not in text


def test_attention_is_blind_to_channels_and_scale_but_not_to_place():
    features = torch.randn(4, 6, 5, 5)
    shuffled = 7 * features[:, torch.randperm(6)]
    assert attention_transfer_loss([features], [shuffled]).item() == pytest.approx(0, abs=1e-6)
    doubled = torch.cat([features, features], dim=1)
    assert attention_transfer_loss([features], [doubled]).item() == pytest.approx(0, abs=1e-6)
    assert attention_transfer_loss([features], [features.flip(3)]).item() > 0.01


def test_attention_of_disjoint_places_is_two():
    one, other = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    one[..., 0, 0], other[..., 1, 1] = 3.0, 5.0
    assert attention_transfer_loss([one], [other]).item() == pytest.approx(2.0)


def test_attention_pools_the_larger_map_in_each_direction():
    large, small = torch.rand(2, 3, 8, 4), torch.rand(2, 5, 4, 4)
    pooled = attention_map(large).reshape(2, 4, 2, 4).mean(dim=2)
    expected = (F.normalize(pooled.flatten(1)) - F.normalize(attention_map(small).flatten(1))).square()
    value = attention_transfer_loss([large], [small])
    assert value.item() == pytest.approx(expected.sum(1).mean().item(), rel=1e-5)
    assert attention_transfer_loss([small], [large]).item() == pytest.approx(value.item(), rel=1e-5)


def test_attention_of_dead_features_has_a_finite_gradient():
    dead = torch.zeros(2, 3, 4, 4, requires_grad=True)
    attention_transfer_loss([dead], [torch.rand(2, 3, 4, 4)]).backward()
    assert torch.isfinite(dead.grad).all()


def test_attention_takes_tokens_and_refuses_tokens_against_maps():
    assert attention_transfer_loss([torch.randn(2, 9, 4)], [torch.randn(2, 9, 8)]).item() > 0
    for other in (torch.randn(2, 4, 3, 3), torch.randn(2, 10, 4)):
        with pytest.raises(PreconditionError, match="cannot compare student 'a', teacher 'b'"):
            attention_transfer_loss([torch.randn(2, 9, 4)], [other], layers=[("a", "b")])
