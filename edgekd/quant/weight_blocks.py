"""Weights of a linear layer in blocks: neighbouring inputs of one output share a scale and a zero point."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from edgekd.models.bake import stored_weight


@dataclass(frozen=True)
class Blocks:
    """A weight as integers ``0 .. 2**bits - 1``.

    Attributes:
        integers: uint8 ``(out, in)``.
        scale: float32 ``(out, blocks)``, the last block may be short.
        zero: uint8 ``(out, blocks)``: the integer that means 0.
        bits: 4 or 8.
        size: inputs a block.
    """

    integers: Tensor
    scale: Tensor
    zero: Tensor
    bits: int
    size: int

    def values(self) -> Tensor:
        """float32 ``(out, in)``: ``(integer - zero) * scale``, as every runtime computes it."""
        width = self.integers.shape[1]
        scale, zero = (each.repeat_interleave(self.size, 1)[:, :width] for each in (self.scale, self.zero))
        return (self.integers.float() - zero.float()) * scale


class BlockFakeQuant(nn.Module):
    """Parametrization: a weight ``(out, in)`` on the grid of fixed scales and zero points. After any mask."""

    scale: Tensor
    zero: Tensor

    def __init__(self, out_features: int, in_features: int, *, bits: int, size: int) -> None:
        super().__init__()
        self.bits, self.size = bits, size
        blocks = -(-in_features // size)
        self.register_buffer("scale", torch.ones(out_features, blocks))
        self.register_buffer("zero", torch.zeros(out_features, blocks, dtype=torch.uint8))

    def blocks(self, weight: Tensor) -> Blocks:
        """The integers of ``weight`` ``(out, in)``."""
        out, width = weight.shape
        padded = F.pad(weight.detach().float(), (0, self.scale.shape[1] * self.size - width))
        steps = padded.reshape(out, -1, self.size) / self.scale.unsqueeze(2)
        integers = (steps.round() + self.zero.unsqueeze(2)).clamp_(0, 2**self.bits - 1)
        integers = integers.to(torch.uint8).reshape(out, -1)[:, :width]
        return Blocks(integers.contiguous(), self.scale, self.zero, self.bits, self.size)

    def forward(self, weight: Tensor) -> Tensor:
        return self.blocks(weight).values().to(weight.dtype)


@torch.no_grad()
def hold(layer: nn.Linear, blocks: Blocks) -> None:
    """Give ``layer`` the values of ``blocks``, and keep them on its grid."""
    room = reserve(layer, bits=blocks.bits, size=blocks.size)
    room.scale.copy_(blocks.scale)
    room.zero.copy_(blocks.zero)
    stored = stored_weight(layer)
    assert stored is not None
    stored.copy_(blocks.values())


def reserve(layer: nn.Linear, *, bits: int, size: int) -> BlockFakeQuant:
    """Only the structure: what ``load_state_dict`` fills."""
    room = BlockFakeQuant(layer.out_features, layer.in_features, bits=bits, size=size)
    parametrize.register_parametrization(layer, "weight", room.to(layer.weight.device), unsafe=True)
    return room


@torch.no_grad()
def weight_blocks(model: nn.Module) -> dict[str, Blocks]:
    """By layer the blocks that ``model`` holds, in module order; empty where none is quantized in blocks."""
    found = {}
    for name, layer in model.named_modules():
        chains = getattr(layer, "parametrizations", None)
        if not isinstance(chains, nn.ModuleDict) or "weight" not in chains:
            continue
        weight = stored_weight(layer)
        for step in chains["weight"]:  # type: ignore[attr-defined]
            if isinstance(step, BlockFakeQuant):
                assert weight is not None
                found[name] = step.blocks(weight)
            weight = step(weight)
    return found
