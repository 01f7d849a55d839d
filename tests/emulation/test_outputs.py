"""Two sets of answers compared: which differ, and whether rounding explains it."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.profiles.emulation.outputs import compare, quantization_step


def logits(count: int = 60, step: float = 0.25) -> np.ndarray:
    return np.random.default_rng(0).integers(-40, 40, (count, 10)) * step


def judged(reference, emulated):
    return compare(np.asarray(reference), np.asarray(emulated), core="Cortex-A72", runtime_version="1")


def test_equal_outputs_agree():
    found = judged(logits(), logits())
    assert (found.top1, found.max_abs_diff, found.disagreements, found.explained) == (1.0, 0.0, (), True)
    assert found.step == 0.25


@pytest.mark.parametrize(("steps", "near"), [(1, True), (2, True), (3, False)])
def test_a_disagreement_is_a_near_tie_up_to_two_steps(steps, near):
    ours, theirs = logits(), logits()
    ours[7] = -5.0
    ours[7, 3], ours[7, 5] = 12.0, 12.0 - steps * 0.25
    theirs[7] = ours[7]
    theirs[7, 5] = 12.25
    found = judged(ours, theirs)
    (odd,) = found.disagreements
    assert (odd.sample, odd.reference, odd.emulated) == (7, 3, 5)
    assert odd.steps == pytest.approx(steps) and odd.near_tie is near and found.explained is near
    assert found.top1 == pytest.approx(59 / 60)


def test_float_outputs_have_no_step():
    ours = np.random.default_rng(0).standard_normal((50, 10))
    assert quantization_step(ours) == 0.0
    assert judged(ours, ours + 1e-6).step == 0.0


@pytest.mark.parametrize(("margin", "near"), [(0.001, True), (0.05, False)])
def test_without_a_step_a_near_tie_is_what_eight_bits_cannot_tell_apart(margin, near):
    ours = np.random.default_rng(0).uniform(-1, 1, (50, 10))
    ours[4, 2], ours[4, 6] = 1.5, 1.5 - margin
    theirs = ours.copy()
    theirs[4, 6] = 1.6
    (odd,) = judged(ours, theirs).disagreements
    assert odd.near_tie is near and odd.steps == pytest.approx(margin * 255 / np.ptp(ours[4]))


def test_the_step_of_float32_values_on_a_grid():
    values = (np.random.default_rng(0).integers(0, 256, 4000) - 128).astype(np.float32) * np.float32(0.0173)
    assert quantization_step(values.astype(np.float64)) == pytest.approx(0.0173, rel=0.02)
