"""The N:M pattern and the mask that it puts on a weight, along the axis that TensorRT reads.

Of every ``m`` neighbours along the *reduction* axis at most ``n`` are non-zero. The reduction axis is the
input channels of a convolution, separately for each kernel position (``(O, I/groups, kh, kw)`` read as
``O, kh, kw, I`` and cut into runs of ``m``), and the input features of a linear layer ``(out, in)``. It is
axis 1 in both, so no weight is ever copied into another layout here.

No torch at import time: :mod:`edgekd.prune.check` reads ONNX initialisers where torch is not installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekd.errors import RecipeError, fault

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Pattern:
    """At most ``n`` non-zeros among every ``m`` neighbours; ``str(Pattern(2, 4)) == "2:4"``."""

    n: int
    m: int

    def __post_init__(self) -> None:
        if not 0 < self.n < self.m:
            raise RecipeError(
                fault("pattern", "not an N:M pattern", got=str(self), allowed="0 < N < M, such as 2:4")
            )

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    @classmethod
    def parse(cls, text: str | Pattern) -> Pattern:
        """``"2:4"`` to ``Pattern(2, 4)``; a pattern passes through.

        Raises:
            RecipeError: not two positive integers with N < M.
        """
        if isinstance(text, Pattern):
            return text
        n, _, m = text.partition(":")
        if not (n.isdecimal() and m.isdecimal()):
            raise RecipeError(
                fault("pattern", "not an N:M pattern", got=text, allowed="0 < N < M, such as 2:4")
            )
        return cls(int(n), int(m))


def nm_mask(weight: Tensor, saliency: Tensor, pattern: Pattern) -> Tensor:
    """The mask that keeps the ``n`` most salient of every ``m`` weights along axis 1.

    Equal saliencies are decided by position: the lower index stays, so the mask is the same on every machine.

    Args:
        weight: ``(O, I/groups, kh, kw)`` of a convolution or ``(out, in)`` of a linear layer (its shape).
        saliency: the same shape, higher is more important, without NaN.
        pattern: the axis of length ``I/groups`` or ``in`` must be a multiple of ``pattern.m``.

    Returns:
        bool, the shape of ``weight``, true where the weight stays; exactly ``n`` true in every group.

    Raises:
        ValueError: the shapes differ or the reduction axis is not a multiple of ``m``.
    """
    import torch

    if weight.shape != saliency.shape or weight.dim() < 2 or weight.shape[1] % pattern.m:
        raise ValueError(
            f"weight {tuple(weight.shape)}, saliency {tuple(saliency.shape)}: not {pattern} along axis 1"
        )
    grouped = saliency.detach().reshape(weight.shape[0], -1, pattern.m, weight[0, 0].numel())
    # A tournament of every pair in a group: one of the two loses, on a tie the later one. As many as `n`
    # losses and the weight goes. For a small m this is several times faster than sorting.
    losses = torch.zeros(grouped.shape, dtype=torch.uint8, device=grouped.device)
    for late in range(1, pattern.m):
        for early in range(late):
            early_wins = grouped[:, :, early] >= grouped[:, :, late]
            losses[:, :, late] += early_wins
            losses[:, :, early] += ~early_wins
    return (losses < pattern.n).reshape(weight.shape)
