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


def hidden(student, teacher, lengths):
    """Jiao et al. 2020, equal widths; sample by sample, token by token, without the padding."""
    layers = []
    for s, t in zip(student, teacher, strict=True):
        samples = []
        for one, other, length in zip(s, t, lengths, strict=True):
            samples.append(np.mean([((one[i] - other[i]) ** 2).mean() for i in range(length)]))
        layers.append(np.mean(samples))
    return float(np.mean(layers))


def cosine(student, teacher, lengths):
    layers = []
    for s, t in zip(student, teacher, strict=True):
        samples = []
        for one, other, length in zip(s, t, lengths, strict=True):
            angles = [
                one[i] @ other[i] / np.sqrt(one[i] @ one[i]) / np.sqrt(other[i] @ other[i])
                for i in range(length)
            ]
            samples.append(np.mean([1 - angle for angle in angles]))
        layers.append(np.mean(samples))
    return float(np.mean(layers))


def relation(left, right):
    """softmax(A B' / sqrt(d)) of one head's rows without padding."""
    return log_softmax(left @ right.T / np.sqrt(left.shape[1]))


def divergence(student, teacher, heads, lengths, pick):
    """Mean over samples, heads and real tokens of KL(teacher || student) of the relation that ``pick`` makes."""
    total = []
    for sample, length in enumerate(lengths):
        for head in range(heads):
            parts = []
            for side in (student, teacher):
                size = side[0].shape[2] // heads
                parts.append([each[sample, :length, head * size : (head + 1) * size] for each in side])
            log_s, log_t = relation(*pick(parts[0])), relation(*pick(parts[1]))
            total.append((np.exp(log_t) * (log_t - log_s)).sum(axis=1).mean())
    return float(np.mean(total))


def minilm(student, teacher, heads, lengths):
    """Wang et al. 2020, eq. 5 to 8."""
    return divergence(student, teacher, heads, lengths, lambda qkv: (qkv[0], qkv[1])) + divergence(
        student, teacher, heads, lengths, lambda qkv: (qkv[2], qkv[2])
    )


def minilm_v2(student, teacher, heads, lengths):
    """Wang et al. 2021, eq. 5 to 7."""
    return float(
        np.mean(
            [
                divergence(student, teacher, heads, lengths, lambda qkv, i=i: (qkv[i], qkv[i]))
                for i in range(3)
            ]
        )
    )


def golden():
    rng = np.random.default_rng(20150309)
    draw = lambda *shape: rng.normal(size=shape).round(3)
    student, teacher = 2 * draw(4, 5), 3 * draw(4, 5)
    labels = [1, 0, 4, 4]
    features_s = [draw(4, 2, 3, 2), draw(4, 3, 2, 2)]
    features_t = [draw(4, 2, 3, 2), 2 * draw(4, 3, 2, 2)]
    lengths = [5, 3, 4, 1]
    tokens_s, tokens_t = [draw(4, 5, 12) for _ in range(3)], [2 * draw(4, 5, 12) for _ in range(3)]
    wide_t = [2 * draw(4, 5, 24) for _ in range(3)]
    return {
        "student_logits": student.tolist(),
        "teacher_logits": teacher.tolist(),
        "labels": labels,
        "student_features": [each.tolist() for each in features_s],
        "teacher_features": [each.tolist() for each in features_t],
        "lengths": lengths,
        "student_tokens": [each.tolist() for each in tokens_s],
        "teacher_tokens": [each.tolist() for each in tokens_t],
        "wide_teacher_tokens": [each.tolist() for each in wide_t],
        "cases": [
            {"objective": "ce", "label_smoothing": 0.0, "value": cross_entropy(student, labels, 0.0)},
            {"objective": "ce", "label_smoothing": 0.1, "value": cross_entropy(student, labels, 0.1)},
            {"objective": "kd", "temperature": 1.0, "value": kd(student, teacher, 1.0)},
            {"objective": "kd", "temperature": 4.0, "value": kd(student, teacher, 4.0)},
            {"objective": "squarehead", "value": squarehead(features_s, features_t)},
            {"objective": "attention", "value": attention(features_s, features_t)},
            {"objective": "hidden", "tokens": "teacher_tokens", "value": hidden(tokens_s, tokens_t, lengths)},
            {
                "objective": "hidden",
                "tokens": "teacher_tokens",
                "distance": "cosine",
                "value": cosine(tokens_s, tokens_t, lengths),
            },
            {
                "objective": "embedding",
                "tokens": "teacher_tokens",
                "value": hidden(tokens_s, tokens_t, lengths),
            },
            {
                "objective": "minilm",
                "tokens": "teacher_tokens",
                "heads": 3,
                "value": minilm(tokens_s, tokens_t, 3, lengths),
            },
            {
                "objective": "minilm",
                "tokens": "wide_teacher_tokens",
                "heads": 2,
                "value": minilm(tokens_s, wide_t, 2, lengths),
            },
            {
                "objective": "minilm-v2",
                "tokens": "wide_teacher_tokens",
                "relation_heads": 4,
                "value": minilm_v2(tokens_s, wide_t, 4, lengths),
            },
            {
                "objective": "minilm-v2",
                "tokens": "wide_teacher_tokens",
                "heads": 3,
                "value": minilm_v2(tokens_s, wide_t, 12, lengths),
            },
        ],
    }


if __name__ == "__main__":
    file = Path(__file__).with_name("objectives.json")
    file.write_text(json.dumps(golden(), indent=1) + "\n", encoding="utf-8")
