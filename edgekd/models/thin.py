"""The parts that pruning puts into a network: nothing at all, and two thin layers instead of a wide one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

FACTORS = (nn.Linear, nn.Conv2d)


class PassThrough(nn.Module):
    """Returns its first argument, whatever else the block that stood here was told."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return x


@torch.no_grad()
def split_layer(layer: nn.Linear | nn.Conv2d, rank: int) -> nn.Sequential:
    """``W`` as the product of two thin layers, by its truncated singular value decomposition.

    ``W ~ (U sqrt(S)) (sqrt(S) V^T)``: Yangyang Guo, Guangzhi Wang, Mohan Kankanhalli, "PELA: Learning
    Parameter-Efficient Models with Low-Rank Approximation", CVPR 2024, arXiv 2310.10700.

    Args:
        layer: linear ``(out, in)``, or a convolution ``(out, in, 1, 1)`` without groups; its stride and padding
            go to the first of the two.
        rank: channels between the two.
    """
    weight = layer.weight.detach().flatten(1)
    left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
    root = values[:rank].sqrt()
    first, second = root[:, None] * right[:rank], left[:, :rank] * root
    kind: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
    outputs, inputs = weight.shape
    if isinstance(layer, nn.Linear):
        pair: tuple[Any, Any] = (
            nn.Linear(inputs, rank, bias=False, **kind),
            nn.Linear(rank, outputs, bias=layer.bias is not None, **kind),
        )
    else:
        pair = (
            nn.Conv2d(inputs, rank, 1, stride=layer.stride, padding=layer.padding, bias=False, **kind),  # type: ignore[arg-type]
            nn.Conv2d(rank, outputs, 1, bias=layer.bias is not None, **kind),
        )
    for part, value in zip(pair, (first, second), strict=True):
        part.weight.copy_(value.reshape(part.weight.shape))
    if layer.bias is not None:
        pair[1].bias.copy_(layer.bias)
    return nn.Sequential(*pair)
