"""Whether a classifier is better than one that always gives the commonest answer."""

from __future__ import annotations

import math

import numpy as np


def commonest_share(labels: np.ndarray) -> float | None:
    """The share of the commonest class in ``labels`` (integers; -1 is unlabelled), None where one is unknown."""
    if not len(labels) or (labels < 0).any():
        return None
    return float(np.bincount(labels).max() / len(labels))


def guessing_doubt(who: str, top1: float | None, commonest: float | None, samples: int) -> str | None:
    """A sentence where ``top1`` may come from always answering the commonest class, else None.

    That is within two standard errors of its share. Of few samples that reaches beyond 100 %: then half of the
    way there is asked for.

    Args:
        who: starts the sentence, such as ``"the teacher"``.
        top1: None where unknown.
        commonest: of :func:`commonest_share`, of the same ``samples``.
    """
    if top1 is None or not commonest:
        return None
    error = math.sqrt(commonest * (1 - commonest) / samples)
    if top1 > min(commonest + 2 * error, (1 + commonest) / 2):
        return None
    return (
        f"{who} is no better than always answering the commonest class: top-1 {top1:.2%} where that is right in "
        f"{commonest:.2%} of {samples} samples. Was it trained for this input (in a recipe: input) and for these "
        "classes, in this order?"
    )
