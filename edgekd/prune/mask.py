"""A fixed N:M mask as a parametrization of ``weight``.

Zeroing weights once does not survive the first optimizer step (weight decay and momentum move the zeros).
As a parametrization the layer only ever *sees* ``weight * mask``, whatever the optimizer does to the stored
weight, and a fake-quant parametrization chained after it quantizes the masked weight: a symmetric grid maps 0
to 0, so the pattern reaches the integers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgekd.errors import PreconditionError, fault


class NMMask(nn.Module):
    """``weight * mask``. The mask is a buffer: it travels in ``state_dict`` and moves with ``.to()``.

    Args:
        mask: bool, the weight's shape, true where the weight stays.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        if mask.dtype != torch.bool:
            raise TypeError(f"the mask is {mask.dtype}, not torch.bool")
        self.register_buffer("mask", mask.clone())

    def forward(self, weight: Tensor) -> Tensor:
        """The masked weight, in the weight's dtype; the gradient is masked too."""
        return weight * self.mask

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Lets ``layer.weight = value`` store ``value``, for example when batch norm is folded in."""
        return weight

    def extra_repr(self) -> str:
        return f"shape={tuple(self.mask.shape)}, kept={self.mask.float().mean().item():.3f}"


def find_mask(layer: nn.Module) -> NMMask | None:
    """The mask on ``layer.weight``, fixed or SR-STE, or None."""
    if not parametrize.is_parametrized(layer, "weight"):
        return None
    first = layer.parametrizations["weight"][0]  # type: ignore[index]
    return first if isinstance(first, NMMask) else None


def place_mask(layer: nn.Module, mask: NMMask, *, where: str = "layer") -> None:
    """Make ``mask`` the first parametrization of ``layer.weight``; an earlier mask is replaced.

    The ``Parameter`` object stays the same one, so an optimizer built before keeps working.

    Raises:
        PreconditionError: the weight is computed from several tensors, as by weight norm.
    """
    if not parametrize.is_parametrized(layer, "weight"):
        parametrize.register_parametrization(layer, "weight", mask)
        return
    chain: parametrize.ParametrizationList = layer.parametrizations["weight"]  # type: ignore[index, assignment]
    if not chain.is_tensor:
        raise PreconditionError(
            fault(where, "the weight is computed from several tensors, no mask fits", fix="exclude it")
        )
    if isinstance(chain[0], NMMask):
        chain[0] = mask
    else:
        chain.insert(0, mask)
