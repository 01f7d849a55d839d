"""How good a text classifier's answers are: one label a text, or several.

With one label the metrics are those of images and F1 averaged over the classes. With several, the answer is
the set of classes whose logit is above 0 (probability one half). Macro F1 leaves out the classes that no text
has and no answer claims.
"""

from __future__ import annotations

import numpy as np

from edgekd.errors import PostconditionError, fault
from edgekd.tasks import image_classification


def metrics(
    logits: np.ndarray, truth: np.ndarray | None, teacher_logits: np.ndarray | None = None
) -> dict[str, float | None]:
    """Fractions, but for ``nll`` in nats; None where the truth or the teacher is missing.

    Args:
        logits: ``(n, classes)``.
        truth: labels int64 ``(n,)``, or 0 and 1 ``(n, classes)`` with several labels a text.
        teacher_logits: ``(n, classes)``.

    Returns:
        ``top1``, ``agreement``, ``ece``, ``nll``, ``f1_macro``; or, with several labels, ``f1_micro``,
        ``f1_macro``, ``exact_match``, ``agreement`` (the same set of labels as the teacher) and ``nll`` (mean
        over samples and classes).

    Raises:
        PostconditionError: an answer is not finite.
        ValueError: shapes that do not fit.
    """
    if truth is not None and truth.ndim == 2:
        return _several(logits, truth, teacher_logits)
    found = image_classification.metrics(logits, truth, teacher_logits)
    found["f1_macro"] = None
    if truth is not None and (truth >= 0).all():
        classes = np.arange(logits.shape[1])
        found["f1_macro"] = f1_macro(truth[:, None] == classes, logits.argmax(axis=1)[:, None] == classes)
    return found


def _several(
    logits: np.ndarray, targets: np.ndarray, teacher_logits: np.ndarray | None
) -> dict[str, float | None]:
    if targets.shape != logits.shape:
        raise ValueError(f"targets {targets.shape} for logits {logits.shape}")
    if not np.isfinite(logits).all():
        raise PostconditionError(fault("answers of the model", "not finite"))
    logits = np.asarray(logits, np.float64)
    true, claimed = targets > 0.5, logits > 0
    likelihood = np.logaddexp(0, logits) - logits * targets
    return {
        "f1_micro": _f1(float((true & claimed).sum()), float(true.sum() + claimed.sum())),
        "f1_macro": f1_macro(true, claimed),
        "exact_match": float((true == claimed).all(axis=1).mean()),
        "agreement": None if teacher_logits is None else same_labels(logits, teacher_logits),
        "nll": float(likelihood.mean()),
    }


def same_labels(logits: np.ndarray, others: np.ndarray) -> float:
    """Share of samples for which two sets of logits ``(n, classes)`` claim the same labels, each above 0."""
    return float(((logits > 0) == (others > 0)).all(axis=1).mean())


def f1_macro(true: np.ndarray, claimed: np.ndarray) -> float:
    """F1 of each class, averaged over the classes that are true or claimed anywhere.

    Args:
        true, claimed: bool ``(n, classes)``.
    """
    both, sizes = (true & claimed).sum(axis=0), true.sum(axis=0) + claimed.sum(axis=0)
    present = sizes > 0
    return float(np.mean(2 * both[present] / sizes[present])) if present.any() else 0.0


def _f1(both: float, sizes: float) -> float:
    return 2 * both / sizes if sizes else 0.0
