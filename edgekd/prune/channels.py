"""A set of channels that must move together, and how to move it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Coupling:
    """One side of a layer. ``repeat`` consecutive inputs belong to one channel (a flatten came between)."""

    layer: str
    side: Literal["in", "out"]
    repeat: int = 1


@dataclass(frozen=True)
class ChannelGroup:
    """All couplings of one set of channels; ``root`` is the layer that produces them first."""

    root: str
    channels: int
    couplings: tuple[Coupling, ...]


@torch.no_grad()
def permute_group(
    module: nn.Module, group: ChannelGroup, order: Tensor, *, sides: Collection[str] = ("in", "out")
) -> None:
    """Move the channels in place: place ``i`` gets channel ``order[i]`` in every coupled tensor."""
    for coupling in group.couplings:
        if coupling.side not in sides:
            continue
        layer = module.get_submodule(coupling.layer)
        if coupling.side == "in":
            columns = order[:, None] * coupling.repeat + torch.arange(coupling.repeat)
            weight: Tensor = layer.weight  # type: ignore[assignment]
            weight.copy_(weight[:, columns.flatten().to(weight.device)])
            continue
        for tensor in [*layer._parameters.values(), *layer._buffers.values()]:
            if tensor is not None and tensor.dim() > 0 and tensor.shape[0] == group.channels:
                tensor.copy_(tensor[order.to(tensor.device)])
