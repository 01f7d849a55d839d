"""Sums of products of integers, exact also where a sum leaves float32's integers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_FLOAT_EXACT = 2**24  # integers below are float32 numbers


def exact_products(func: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor) -> Tensor:
    """``func`` of two tensors of integers, float64: in float32 parts whose sums stay exact, or in float64 at once."""
    most = float(x.abs().max()) * float(weight.abs().flatten(1).sum(1).max())
    if most < _FLOAT_EXACT:
        return func(x, weight).double()
    if (
        weight.ndim == 4 and weight.shape[1] != x.shape[1]
    ):  # grouped: a part of the channels is no convolution
        return func(x.double(), weight.double())
    parts = int(most // _FLOAT_EXACT) + 1
    pieces = zip(
        x.tensor_split(parts, -1 if weight.ndim == 2 else 1), weight.tensor_split(parts, 1), strict=True
    )
    return torch.stack([exact_products(func, a, b) for a, b in pieces if b.numel()]).sum(0)
