"""What one forward pass costs: parameters and multiply-accumulates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from edgekd.models.black_box import BlackBox
from edgekd.models.evaluating import evaluating
from edgekd.models.graph_cost import graph_cost
from edgekd.models.plain_attention import without_fast_path


@dataclass(frozen=True)
class Cost:
    """Counts of one model for one sample.

    Attributes:
        params: trainable numbers as the forward pass sees them (a masked weight counts once, with its zeros).
        nonzero_params: those of them that are not exactly 0.
        macs: multiply-accumulates of convolutions, linear layers and matrix products; zeros count too.
    """

    params: int
    nonzero_params: int
    macs: int


def measure_cost(module: nn.Module, sample: tuple[int, int, int] | Tensor) -> Cost:
    """Count ``module`` for one image of ``(channels, height, width)``, or for a given batch of one.

    An ONNX black box is counted from its graph.
    """
    if isinstance(module, BlackBox):
        return Cost(
            *graph_cost(module.path, tuple(sample.shape[1:]) if isinstance(sample, Tensor) else sample)
        )
    weights = effective_parameters(module)
    return Cost(
        params=sum(weight.numel() for weight in weights),
        nonzero_params=sum(int(torch.count_nonzero(weight)) for weight in weights),
        macs=count_macs(module, sample),
    )


@torch.no_grad()
def effective_parameters(module: nn.Module) -> list[Tensor]:
    """Every parameter once; a parametrized one as its parametrizations return it, without their own."""
    seen: set[int] = set()
    found: list[Tensor] = []
    inner = {
        id(parameter)
        for child in module.modules()
        if parametrize.is_parametrized(child)
        for parameter in child.parametrizations.parameters()  # type: ignore[union-attr]
    }
    for child in module.modules():
        if parametrize.is_parametrized(child):
            found += [getattr(child, name).detach() for name in child.parametrizations]  # type: ignore[union-attr]
        for parameter in child.parameters(recurse=False):
            if id(parameter) not in seen and id(parameter) not in inner:
                seen.add(id(parameter))
                found.append(parameter.detach())
    return found


def count_macs(module: nn.Module, sample: tuple[int, int, int] | Tensor) -> int:
    """Multiply-accumulates of one sample (as in :func:`measure_cost`), counted from the operators that really run."""
    parameter = next(module.parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    batch = sample if isinstance(sample, Tensor) else torch.zeros(1, *sample)
    # Fused attention has no formula of its own in the counter: take it apart.
    counter = FlopCounterMode(display=False)
    with evaluating(module), torch.no_grad(), without_fast_path(), sdpa_kernel(SDPBackend.MATH), counter:
        module(batch.to(device))
    return counter.get_total_flops() // 2
