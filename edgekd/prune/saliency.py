"""How much a weight matters: its magnitude, or its magnitude times the norm of what it is multiplied with.

``wanda``: Mingjie Sun, Zhuang Liu, Anna Bair, J. Zico Kolter. "A Simple and Effective Pruning Approach for
Large Language Models", ICLR 2024, https://arxiv.org/abs/2306.11695, equation 1: S_ij = |W_ij| * ||X_j||_2
with X_j the j-th input feature over all samples and tokens. For a convolution X_j is input channel j over
the batch and all positions (our extension; the paper prunes linear layers).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.models.evaluating import evaluating


def magnitude(weight: Tensor) -> Tensor:
    """``|W|``, any shape."""
    return weight.detach().abs()


def wanda(weight: Tensor, input_norms: Tensor, *, groups: int = 1) -> Tensor:
    """``|W_ij| * ||X_j||_2``.

    Args:
        weight: ``(O, I/groups, kh, kw)`` or ``(out, in)``.
        input_norms: ``(I,)``, the L2 norm of each input channel or feature.
        groups: of a grouped convolution; output ``o`` reads the inputs of group ``o // (O / groups)``.
    """
    outputs, inputs = weight.shape[:2]
    norms = input_norms.to(weight).reshape(groups, inputs).repeat_interleave(outputs // groups, dim=0)
    return weight.detach().abs() * norms.reshape(outputs, inputs, *[1] * (weight.dim() - 2))


@contextmanager
def record_squared_inputs(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Sum the squares of every input channel, over all forward passes inside the ``with`` block.

    Yields:
        Layer name to float64 ``(I,)``; a layer that never ran is missing. The hooks are removed on leaving
        the block, also by an exception.
    """
    sums: dict[str, Tensor] = {}

    def record(name: str, layer: nn.Module, inputs: Tensor) -> None:
        channel = 1 if isinstance(layer, nn.Conv2d) and inputs.dim() == 4 else -1
        if isinstance(layer, nn.Conv2d) and inputs.dim() == 3:
            channel = 0  # an image without a batch
        squares = inputs.detach().movedim(channel, 0).flatten(1).double().square().sum(dim=1)
        sums[name] = sums[name] + squares if name in sums else squares

    def hook_of(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            record(name, layer, args[0] if args else kwargs["input"])

        return hook

    handles = [
        layer.register_forward_pre_hook(hook_of(name), with_kwargs=True) for name, layer in layers.items()
    ]
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()


def collect_input_norms(
    module: nn.Module, layers: Mapping[str, nn.Module], batches: Iterable[Tensor]
) -> dict[str, Tensor]:
    """Run ``batches`` through ``module`` in evaluation mode; every layer's input norms, float64 ``(I,)``.

    Each sub-module's training flag is as before afterwards.
    """
    device = next(module.parameters()).device
    with evaluating(module), torch.no_grad(), record_squared_inputs(layers) as sums:
        for batch in batches:
            module(batch.to(device))
    return {name: squares.sqrt() for name, squares in sums.items()}
