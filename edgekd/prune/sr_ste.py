"""SR-STE: a mask that may still change while the network trains.

Aojun Zhou, Yukun Ma, Junnan Zhu, Jianbo Liu, Zhijie Zhang, Kun Yuan, Wenxiu Sun, Hongsheng Li. "Learning N:M
Fine-grained Structured Sparse Neural Networks From Scratch", ICLR 2021, https://arxiv.org/abs/2102.04010.

With the mask E of the current weights W (1 where a weight is among the n largest magnitudes of its group),
the network runs on E * W and the dense W is updated with

    W <- W - lr * (g(E * W) + decay * (1 - E) * W)

where g is the gradient at the masked weight, passed straight through to every entry, and the second term
pulls the pruned weights towards zero so that the mask settles ("sparse-refined" term, their lambda_W = 2e-4).

Known deviations: the term is added to the gradient, so that AdamW normalises it along with the rest (the
authors train with SGD), and it is added once for every backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgekd.prune.mask import NMMask
from edgekd.prune.pattern import Pattern, nm_mask


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor, decay: float) -> Tensor:
        ctx.save_for_backward(weight, mask)
        ctx.decay = decay
        return weight * mask

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        weight, mask = ctx.saved_tensors
        return gradients[0] + ctx.decay * (weight * ~mask), None, None


class SRSTEMask(NMMask):
    """The mask follows the magnitudes of the current weights at every forward pass, training or not.

    The buffer ``mask`` always holds the mask of the last forward pass, under the same ``state_dict`` key as a
    fixed mask's.

    Args:
        shape: of the weight.
        pattern: such as ``Pattern(2, 4)``.
        decay: lambda_W of the paper.
    """

    def __init__(self, shape: torch.Size | tuple[int, ...], pattern: Pattern, *, decay: float = 2e-4) -> None:
        super().__init__(torch.ones(shape, dtype=torch.bool))
        self.pattern = pattern
        self.decay = decay

    def forward(self, weight: Tensor) -> Tensor:
        mask = nm_mask(weight, weight.detach().abs(), self.pattern)
        # A copy: backward holds `mask`, and the next forward pass may rewrite the buffer before it runs.
        self.mask.copy_(mask)
        return _StraightThrough.apply(weight, mask, self.decay)

    def freeze(self, weight: Tensor) -> NMMask:
        """The fixed mask of ``weight``, the *stored* weight (``parametrizations.weight.original``)."""
        return NMMask(nm_mask(weight, weight.detach().abs(), self.pattern))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, pattern={self.pattern}, decay={self.decay}"
