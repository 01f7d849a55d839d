from __future__ import annotations

import numpy as np
import pytest

from edgekd.errors import PostconditionError
from edgekd.tasks.guessing import commonest_share, guessing_doubt
from edgekd.tasks.image_classification import expected_calibration_error, log_softmax, metrics


def test_known_values() -> None:
    """By hand: probabilities 0.8/0.2 and 0.4/0.6."""
    logits = np.log([[0.8, 0.2], [0.4, 0.6]])
    result = metrics(logits, np.array([0, 0]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert result["top1"] == 0.5
    assert result["agreement"] == 0.5
    assert result["nll"] == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2)
    assert result["ece"] == pytest.approx((abs(1 - 0.8) + abs(0 - 0.6)) / 2)


def test_calibration_error_pools_a_bin_before_the_absolute_value() -> None:
    confidence = np.array([0.90, 0.92, 0.91, 0.93])  # all in (13/15, 14/15]
    correct = np.array([True, True, True, False])
    assert expected_calibration_error(confidence, correct) == pytest.approx(abs(0.75 - 0.915))


def test_calibration_bins_are_closed_above() -> None:
    # 14/15 belongs to the bin of 0.9; beside 1.0 their gaps would cancel in one bin.
    assert expected_calibration_error(np.array([14 / 15, 1.0]), np.array([False, True])) == pytest.approx(
        14 / 30
    )


def test_perfect_and_confident_is_calibrated() -> None:
    result = metrics(np.eye(3) * 50, np.arange(3), np.eye(3))
    assert result["top1"] == result["agreement"] == 1.0
    assert result["ece"] == pytest.approx(0, abs=1e-9)


def test_huge_logits_do_not_overflow() -> None:
    with np.errstate(over="raise", invalid="raise"):
        result = metrics(np.array([[1e5, -1e5], [3e4, 3e4]], np.float32), np.array([1, 0]))
    assert result["nll"] == pytest.approx((2e5 + np.log(2)) / 2)
    assert np.exp(log_softmax(np.array([[800.0, 800.0]]))).tolist() == [[0.5, 0.5]]


def test_without_labels_only_agreement_is_known() -> None:
    logits = np.eye(2)
    for labels in (None, np.array([-1, -1])):
        result = metrics(logits, labels, np.ones((2, 2)) * [1.0, 0.0])
        assert result == {"top1": None, "agreement": 0.5, "ece": None, "nll": None}
    assert metrics(logits, np.array([0, 1]))["agreement"] is None


def test_unlabelled_samples_do_not_count_as_wrong() -> None:
    assert metrics(np.eye(3), np.array([0, -1, 0]))["top1"] == 0.5


def test_a_class_that_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="up to 2"):
        metrics(np.eye(2), np.array([0, 2]))


def test_nan_is_named_and_not_scored() -> None:
    logits = np.eye(3)
    logits[1, 0] = np.nan
    with pytest.raises(PostconditionError, match="1 of 3"):
        metrics(logits, np.arange(3))


@pytest.mark.parametrize(
    ("top1", "share", "samples", "doubted"),
    [
        (0.10, 0.1, 40, True),
        (0.19, 0.1, 40, True),  # two standard errors are 0.095
        (0.20, 0.1, 40, False),
        (0.12, 0.1, 10_000, False),
        (0.002, 0.001, 5000, False),  # a thousand classes
        (10 / 12, 10 / 12, 12, True),
        (1.0, 10 / 12, 12, False),  # two standard errors reach beyond 1
        (None, 0.1, 40, False),
        (0.1, None, 40, False),
    ],
)
def test_an_answer_that_is_always_the_same_is_no_skill(
    top1: float | None, share: float | None, samples: int, doubted: bool
) -> None:
    doubt = guessing_doubt("the teacher", top1, share, samples)
    assert (doubt is not None) is doubted
    if doubt is not None:
        assert doubt.startswith("the teacher is no better") and f"{share:.2%} of {samples}" in doubt


def test_the_share_of_the_commonest_class() -> None:
    assert commonest_share(np.array([2, 0, 2, 1])) == 0.5
    assert commonest_share(np.array([2, -1, 2, 1])) is None, "one is not known"
    assert commonest_share(np.array([], np.int64)) is None
