"""A text encoder as one tensor in, logits out: token ids are all that it is given.

The mask of the padding and the segments of a pair are worked out of the ids inside the module, so that they
are part of the exported file too.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn

Pooling = Literal["mean", "first"]
MaskForm = Literal["bias", "flags"]
"""How an encoder wants to be told of padding: a float to add to attention scores, or 1 and 0 for each token."""


class PooledHead(nn.Module):
    """Token vectors to logits: pooled over the real tokens, dropout, one linear layer.

    Args:
        pooling: ``mean`` over the tokens that are no padding, or the ``first`` token's vector.
    """

    def __init__(self, width: int, classes: int, *, pooling: Pooling, dropout: float = 0.1) -> None:
        super().__init__()
        self.pooling = pooling
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, classes)

    def forward(self, hidden: Tensor, real: Tensor) -> Tensor:
        """``hidden`` ``(batch, tokens, width)``, ``real`` bool ``(batch, tokens)`` to ``(batch, classes)``."""
        if self.pooling == "first":
            pooled = hidden[:, 0]
        else:
            share = real.to(hidden.dtype)
            share = share / share.sum(dim=1, keepdim=True).clamp(min=1.0)
            pooled = torch.matmul(share.unsqueeze(1), hidden).squeeze(1)
        return self.linear(self.dropout(pooled))


class TextClassifier(nn.Module):
    """int64 ``(batch, tokens)`` to logits ``(batch, classes)``.

    Args:
        encoder: a Hugging Face model; it returns token vectors first where there is a ``head``, else logits.
        head: None where the encoder has its own.
        config: JSON-able, what :func:`edgekd.models.hf_build.build_text` needs to make this module again.
        pad_id: of the token that fills a batch.
        separator_id: of the token that ends a text.
        segments: the encoder tells the two texts of a pair apart by ``token_type_ids``: what follows the first
            separator is the second text.
        mask: see :data:`MaskForm`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: PooledHead | None,
        *,
        config: dict[str, Any],
        pad_id: int,
        separator_id: int,
        segments: bool,
        mask: MaskForm = "bias",
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.config = copy.deepcopy(config)
        self.pad_id, self.separator_id = pad_id, separator_id
        self.segments, self.mask = segments, mask

    def forward(self, input_ids: Tensor) -> Tensor:
        real = input_ids != self.pad_id
        given = {"input_ids": input_ids, "attention_mask": self._mask(real)}
        if self.segments:
            given["token_type_ids"] = self._segments(input_ids, real)
        answer: Tensor = self.encoder(**given)[0]
        return answer if self.head is None else self.head(answer, real)

    def _mask(self, real: Tensor) -> Tensor:
        if self.mask == "flags":
            return real.to(torch.int64)
        dtype = next(self.encoder.parameters()).dtype
        padding = (~real).to(dtype)[:, None, None, :]
        return padding * torch.finfo(dtype).min

    def _segments(self, input_ids: Tensor, real: Tensor) -> Tensor:
        separators = (input_ids == self.separator_id).to(torch.int64)
        before = separators.cumsum(dim=1) - separators
        return ((before > 0) & real).to(torch.int64)
