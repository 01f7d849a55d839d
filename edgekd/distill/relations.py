"""How tokens relate to each other, as probabilities: the form in which attention is compared.

Padding takes no part: no probability goes to it, and its own rows do not count.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def mean_over_tokens(values: Tensor, tokens: Tensor | None) -> Tensor:
    """``(batch, tokens)`` to a scalar: first over each sample's real tokens, then over the samples.

    Args:
        tokens: bool ``(batch, tokens)``, true where there is no padding; None: everywhere.
    """
    if tokens is None:
        return values.mean()
    real = tokens.to(values.dtype)
    # where() and not a product: what padding holds may be infinite.
    kept = torch.where(tokens, values, torch.zeros_like(values))
    return (kept.sum(dim=1) / real.sum(dim=1).clamp(min=1)).mean()


def split_heads(vectors: Tensor, heads: int) -> Tensor:
    """``(batch, tokens, width)`` to float32 ``(batch, heads, tokens, width / heads)``."""
    batch, tokens, width = vectors.shape
    return vectors.float().reshape(batch, tokens, heads, width // heads).transpose(1, 2)


def log_relation(left: Tensor, right: Tensor, tokens: Tensor | None) -> Tensor:
    """``log softmax(left right^T / sqrt(channels))``, ``(batch, heads, tokens, tokens)``.

    Args:
        left, right: ``(batch, heads, tokens, channels)``.
    """
    scores = left @ right.transpose(-1, -2) / math.sqrt(left.shape[-1])
    if tokens is not None:
        scores = scores.masked_fill(~tokens[:, None, None, :], torch.finfo(scores.dtype).min)
    return scores.log_softmax(dim=-1)


def relation_divergence(student: Tensor, teacher: Tensor, tokens: Tensor | None) -> Tensor:
    """KL(teacher || student) of two log relations, averaged over heads, real tokens and samples."""
    target = teacher.detach()
    divergence = (target.exp() * (target - student)).sum(dim=-1).mean(dim=1)
    return mean_over_tokens(divergence, tokens)
