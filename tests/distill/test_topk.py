from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distill.objectives.kd import kd_loss
from edgekd.distill.topk import class_dtype, decode, encode

torch.manual_seed(0)
LOGITS = 4 * torch.randn(64, 12)


def test_all_classes_come_back_to_within_float16():
    values, indices = encode(LOGITS, 12)
    assert values.dtype == np.float16 and indices.dtype == np.int16
    torch.testing.assert_close(decode(values, indices, 12), LOGITS.log_softmax(1), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("top_k", [1, 3, 11, 12])
def test_every_row_sums_to_one(top_k):
    for logits in (LOGITS, 100 * LOGITS, torch.zeros(3, 12)):
        restored = decode(*encode(logits, top_k), 12)
        torch.testing.assert_close(restored.exp().sum(1), torch.ones(len(logits)), rtol=0, atol=1e-5)
        assert torch.isfinite(restored).all()


def test_what_is_left_over_is_spread_evenly_over_the_other_classes():
    restored, exact = decode(*encode(LOGITS, 3), 12).exp(), LOGITS.softmax(1)
    kept = exact.topk(3, dim=1)
    torch.testing.assert_close(restored.gather(1, kept.indices), kept.values, rtol=5e-3, atol=1e-4)
    others = torch.ones_like(exact, dtype=torch.bool).scatter_(1, kept.indices, False)
    left = restored[others].reshape(64, 9)
    torch.testing.assert_close(left, left[:, :1].expand(-1, 9))
    torch.testing.assert_close(left[:, 0], (1 - kept.values.sum(1)) / 9, rtol=0.05, atol=2e-4)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_from_stored_answers_equals_kd_from_logits(temperature):
    student = torch.randn(64, 12, requires_grad=True)
    live = kd_loss(student, LOGITS, temperature=temperature)
    (gradient,) = torch.autograd.grad(live, student)
    stored = kd_loss(student, decode(*encode(LOGITS, 12), 12), temperature=temperature)
    (replayed,) = torch.autograd.grad(stored, student)
    assert stored.item() == pytest.approx(live.item(), rel=1e-3)
    torch.testing.assert_close(replayed, gradient, rtol=0, atol=1e-3 * gradient.abs().max().item())


def test_kd_from_few_classes_is_close_where_the_teacher_is_sure():
    student, teacher = torch.randn(256, 100), 8 * torch.randn(256, 100)
    live = kd_loss(student, teacher, temperature=1.0)
    stored = kd_loss(student, decode(*encode(teacher, 10), 100), temperature=1.0)
    assert stored.item() == pytest.approx(live.item(), rel=0.01)


def test_extreme_and_half_precision_logits_are_finite():
    logits = torch.tensor([[0.0, 3e5, -3e5], [1e4, 1e4, 1e4]])
    restored = decode(*encode(logits, 3), 3)
    assert torch.isfinite(restored).all() and torch.isfinite(
        kd_loss(torch.randn(2, 3), restored, temperature=4)
    )
    half = decode(*encode(LOGITS.bfloat16(), 12), 12)
    torch.testing.assert_close(half, LOGITS.bfloat16().float().log_softmax(1), rtol=2e-3, atol=2e-3)


def test_indices_widen_where_16_bits_do_not_hold_them():
    assert class_dtype(32_767) == np.int16 and class_dtype(32_768) == np.int32
    logits = torch.zeros(1, 40_000)
    logits[0, 39_999] = 5.0
    values, indices = encode(logits, 2)
    assert indices[0, 0] == 39_999
    assert decode(values, indices, 40_000)[0].argmax() == 39_999
