"""What a model is for: which data it reads, how its answers are judged, by which number epochs are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgekd.tasks import image_classification, text_classification


class Metrics(Protocol):
    """Logits against the truth and the teacher; None where either is missing."""

    def __call__(
        self, logits: np.ndarray, truth: np.ndarray | None, teacher_logits: np.ndarray | None = None, /
    ) -> dict[str, float | None]: ...


@dataclass(frozen=True)
class Task:
    """One value of a recipe's ``task``.

    Attributes:
        text: the data are texts, not images.
        metrics: the judge; what it returns stands in ``report.json``.
    """

    name: str
    text: bool
    metrics: Metrics

    def criterion(self, *, several: bool) -> str:
        """The metric that chooses the best epoch and that limits are about.

        Args:
            several: a sample may have several labels.
        """
        return "f1_micro" if several else "top1"

    def agreement(self, logits: np.ndarray, others: np.ndarray, *, several: bool) -> float:
        """Share of samples with the same answer in two sets of logits ``(n, classes)``."""
        if several:
            return text_classification.same_labels(logits, others)
        return float((logits.argmax(axis=1) == others.argmax(axis=1)).mean())


IMAGE = Task("image-classification", False, image_classification.metrics)
TEXT = Task("text-classification", True, text_classification.metrics)
TASKS: dict[str, Task] = {task.name: task for task in (IMAGE, TEXT)}
