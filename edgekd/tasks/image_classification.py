"""How good a classifier's answers are: against the labels, and against its teacher.

Calibration error: C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On Calibration of Modern Neural Networks",
ICML 2017, arXiv:1706.04599, equation 3, with 15 bins of equal width.
"""

from __future__ import annotations

import numpy as np

from edgekd.errors import PostconditionError, fault

ECE_BINS = 15


def metrics(
    logits: np.ndarray, labels: np.ndarray | None, teacher_logits: np.ndarray | None = None
) -> dict[str, float | None]:
    """``top1``, ``agreement``, ``ece`` as fractions and ``nll`` in nats, means over the samples.

    Args:
        logits: ``(n, classes)``.
        labels: integers ``(n,)``; -1 is unlabelled. Where no sample is labelled, ``top1``, ``ece`` and
            ``nll`` are None.
        teacher_logits: ``(n, classes)``; without them ``agreement`` is None.

    Raises:
        PostconditionError: an answer is not finite.
        ValueError: shapes that do not fit.
    """
    logits = _checked(logits, "the model")
    predicted = logits.argmax(axis=1)
    result: dict[str, float | None] = dict.fromkeys(("top1", "agreement", "ece", "nll"))
    if teacher_logits is not None:
        teacher = _checked(teacher_logits, "the teacher")
        if len(teacher) != len(logits):
            raise ValueError(f"{len(teacher)} teacher answers for {len(logits)} samples")
        result["agreement"] = float(np.mean(predicted == teacher.argmax(axis=1)))
    if labels is None:
        return result
    labels = np.asarray(labels)
    if labels.shape != (len(logits),) or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels {labels.shape} up to {labels.max()} for logits {logits.shape}")
    known = labels >= 0
    if not known.any():
        return result
    logits, labels, predicted = logits[known], labels[known], predicted[known]
    log_probabilities = log_softmax(logits)
    correct = predicted == labels
    result["top1"] = float(np.mean(correct))
    result["nll"] = float(-np.mean(log_probabilities[np.arange(len(labels)), labels]))
    result["ece"] = expected_calibration_error(np.exp(log_probabilities.max(axis=1)), correct)
    return result


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Natural logarithm of softmax over the last axis; large logits do not overflow."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = ECE_BINS) -> float:
    """Mean over the samples of |accuracy - confidence| of their bin; a bin is open below and closed above.

    Args:
        confidence: the highest probability of each sample, ``(n,)``.
        correct: bool ``(n,)``.
    """
    number = np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1).astype(np.int64)
    gap = np.bincount(number, weights=correct - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(confidence))


def _checked(logits: np.ndarray, whose: str) -> np.ndarray:
    logits = np.asarray(logits, np.float64)
    if logits.ndim != 2 or not logits.size:
        raise ValueError(f"logits must be (samples, classes), got {logits.shape}")
    wrong = int((~np.isfinite(logits).all(axis=1)).sum())
    if wrong:
        raise PostconditionError(fault(f"answers of {whose}", "not finite", got=f"{wrong} of {len(logits)}"))
    return logits
