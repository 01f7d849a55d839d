"""Writes objectives.json: the objectives' formulas worked out in numpy, from the papers, without torch.

Run: python tests/golden/make_objectives.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def log_softmax(logits):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def cross_entropy(student, labels, smoothing):
    """Sample by sample, Szegedy et al. 2016, section 7."""
    classes = student.shape[1]
    log_p = log_softmax(student)
    losses = []
    for row, label in zip(log_p, labels, strict=True):
        target = np.full(classes, smoothing / classes)
        target[label] += 1 - smoothing
        losses.append(-(target * row).sum())
    return float(np.mean(losses))


def kd(student, teacher, temperature):
    """Hinton et al. 2015, section 2: KL of the softened distributions, times T squared."""
    log_s, log_t = log_softmax(student / temperature), log_softmax(teacher / temperature)
    divergence = (np.exp(log_t) * (log_t - log_s)).sum(axis=1)
    return float(divergence.mean() * temperature**2)


def squarehead(student, teacher):
    """Kurtic et al. 2023, section 3."""
    return float(
        sum(((s - t) ** 2).mean() / ((t**2).mean() + 1e-6) for s, t in zip(student, teacher, strict=True))
    )


def attention(student, teacher):
    """Zagoruyko and Komodakis 2017, section 3.1, squared distance; map by map."""
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        distances = []
        for one, other in zip(s, t, strict=True):
            q_s, q_t = (one**2).sum(axis=0).ravel(), (other**2).sum(axis=0).ravel()
            distances.append(((q_s / np.sqrt((q_s**2).sum()) - q_t / np.sqrt((q_t**2).sum())) ** 2).sum())
        total += np.mean(distances)
    return float(total)


def golden():
    rng = np.random.default_rng(20150309)
    draw = lambda *shape: rng.normal(size=shape).round(3)
    student, teacher = 2 * draw(4, 5), 3 * draw(4, 5)
    labels = [1, 0, 4, 4]
    features_s = [draw(4, 2, 3, 2), draw(4, 3, 2, 2)]
    features_t = [draw(4, 2, 3, 2), 2 * draw(4, 3, 2, 2)]
    return {
        "student_logits": student.tolist(),
        "teacher_logits": teacher.tolist(),
        "labels": labels,
        "student_features": [each.tolist() for each in features_s],
        "teacher_features": [each.tolist() for each in features_t],
        "cases": [
            {"objective": "ce", "label_smoothing": 0.0, "value": cross_entropy(student, labels, 0.0)},
            {"objective": "ce", "label_smoothing": 0.1, "value": cross_entropy(student, labels, 0.1)},
            {"objective": "kd", "temperature": 1.0, "value": kd(student, teacher, 1.0)},
            {"objective": "kd", "temperature": 4.0, "value": kd(student, teacher, 4.0)},
            {"objective": "squarehead", "value": squarehead(features_s, features_t)},
            {"objective": "attention", "value": attention(features_s, features_t)},
        ],
    }


if __name__ == "__main__":
    file = Path(__file__).with_name("objectives.json")
    file.write_text(json.dumps(golden(), indent=1) + "\n", encoding="utf-8")
