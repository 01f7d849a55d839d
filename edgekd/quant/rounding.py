"""Weights rounded so that their errors cancel in a layer's output, instead of each to its nearest integer.

E. Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023,
arXiv 2210.17323, algorithm 1 (inputs in the order of their second moments), for convolutions as well, on the grid
that :class:`edgekd.quant.fake_quant.WeightFakeQuant` has anyway: one scale for an output channel, by its largest
weight, which therefore stays as it is. neural-compressor's solver chooses scales of its own and knows no masks.

Worth it where single weights dwarf the others of their channel, as in merged branches (RepVGG: the identity).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.models.bake import stored_weight
from edgekd.models.layer_calls import see_calls
from edgekd.quant.fake_quant import WeightFakeQuant
from edgekd.quant.partial import quantized_layers
from edgekd.quant.phases import borrowed
from edgekd.quant.qat import QuantizedModel

_DAMPING = 0.01  # of the mean second moment, as in the paper
_BLOCK = 128  # columns whose errors are handed on together
_WIDEST = 6144  # weights of one output; the cost grows with the cube
_AT_ONCE = 2**27  # entries of second moments in memory together: half a gigabyte


@torch.no_grad()
def solved_weights(model: QuantizedModel, batches: Sequence[Tensor]) -> dict[str, Tensor]:
    """By layer the weight on its integer grid, as :func:`put_weights` takes it; ``model`` is as before.

    Layers that are wider than solving is worth are missing.

    Args:
        batches: inputs ``(batch, ...)``; what layers read is taken from the float network.
    """
    found = {}
    with borrowed(model):
        for names in _portions(model):
            moments = _second_moments(model, names, batches)
            for name, each in moments.items():
                layer = model.model.get_submodule(name)
                weight, scale = _in_float(layer)
                rows = weight.reshape(len(each), -1, each.shape[-1])
                solved = round_columns(rows, scale.reshape(rows.shape[:2]), each, _largest(layer))
                found[name] = solved.reshape(weight.shape)
    return found


@torch.no_grad()
def put_weights(model: QuantizedModel, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Exchange the stored weights of layers, in place; those from before are returned."""
    before = {}
    for name, weight in weights.items():
        stored = stored_weight(model.model.get_submodule(name))
        assert stored is not None
        before[name] = stored.detach().clone()
        stored.copy_(weight)
    return before


def round_columns(weight: Tensor, scale: Tensor, moments: Tensor, largest: int) -> Tensor:
    """``weight`` on the grid of ``scale``, errors of earlier columns made up for by later ones.

    Zeros stay zero (a mask's), and so does each row's largest weight (it gives the scale).

    Args:
        weight: float32 ``(groups, out, in)``.
        scale: ``(groups, out)``.
        moments: sums over samples of products of inputs, ``(groups, in, in)``.
        largest: integers lie in ``-largest .. largest``.
    """
    kept = (weight == 0).scatter_(2, weight.abs().argmax(2, keepdim=True), True)
    order = moments.diagonal(dim1=1, dim2=2).argsort(1, descending=True)
    across = order[:, None, :].expand_as(weight)
    left, kept = weight.double().gather(2, across), kept.gather(2, across)
    exact = left.clone()
    factor = _inverse_factor(moments.double(), order)
    done = torch.empty_like(left)
    step = scale.double()
    for start in range(0, left.shape[2], _BLOCK):
        end = min(start + _BLOCK, left.shape[2])
        errors = torch.empty_like(left[:, :, start:end])
        for column in range(start, end):
            now = left[:, :, column]
            rounded = (now / step).round_().clamp_(-largest, largest) * step
            rounded = torch.where(kept[:, :, column], exact[:, :, column], rounded)
            done[:, :, column] = rounded
            error = (now - rounded) / factor[:, column, column, None]
            left[:, :, column:end] -= error[:, :, None] * factor[:, None, column, column:end]
            errors[:, :, column - start] = error
        left[:, :, end:] -= errors @ factor[:, start:end, end:]
    return torch.empty_like(done).scatter_(2, across, done).to(weight.dtype)


def _inverse_factor(moments: Tensor, order: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse of ``moments``, damped, rows and columns in ``order``."""
    size = moments.shape[-1]
    moments = moments.gather(1, order[:, :, None].expand_as(moments))
    moments = moments.gather(2, order[:, None, :].expand_as(moments)).clone()
    diagonal = moments.diagonal(dim1=1, dim2=2)
    diagonal += _DAMPING * diagonal.mean(1, keepdim=True)
    diagonal[diagonal <= 0] = 1.0  # a group that only ever read zeros
    lower = torch.linalg.cholesky(moments)
    inverse = torch.cholesky_solve(torch.eye(size, dtype=lower.dtype).expand_as(lower), lower)
    return torch.linalg.cholesky(inverse, upper=True)


def _second_moments(
    model: QuantizedModel, names: Sequence[str], batches: Sequence[Tensor]
) -> dict[str, Tensor]:
    """By layer ``(groups, in, in)``; of evenly spaced positions, twice as many as there are inputs."""
    sums: dict[str, Tensor] = {}

    def add(name: str, x: Tensor, weight: Tensor, *call: Any, **settings: Any) -> None:
        with torch._C.DisableTorchFunction():  # what is computed here is no call of the network
            read = _columns(x.detach().float(), weight, *call, **settings)
            most = -(-max(2 * read.shape[1], 2048) // len(batches))
            if read.shape[2] > most:
                read = read[:, :, torch.linspace(0, read.shape[2] - 1, most).long()]
            product = read @ read.mT
            sums[name] = sums[name] + product if name in sums else product

    see_calls(model.model, batches, {name: partial(add, name) for name in names})
    return sums


def _columns(
    x: Tensor,
    weight: Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """What one output position reads, ``(groups, in, positions)``; arguments as of ``conv2d`` or ``linear``."""
    if weight.dim() == 2:
        return x.reshape(1, -1, x.shape[-1]).mT
    patches = F.unfold(x, weight.shape[2:], dilation, padding, stride)
    return patches.transpose(0, 1).reshape(groups, patches.shape[1] // groups, -1)


def _portions(model: QuantizedModel) -> Iterator[list[str]]:
    """Names of the layers that are solved, so many at a time that their moments fit in memory."""
    names: list[str] = []
    entries = 0
    for name in quantized_layers(model):
        layer = model.model.get_submodule(name)
        groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
        weight = stored_weight(layer)
        assert weight is not None
        width = weight[0].numel()
        if width > _WIDEST or (isinstance(layer, nn.Conv2d) and isinstance(layer.padding, str)):
            continue
        if names and entries + groups * width * width > _AT_ONCE:
            yield names
            names, entries = [], 0
        names.append(name)
        entries += groups * width * width
    if names:
        yield names


def _in_float(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """The weight after its mask and before its rounding, and the scales ``(out,)``."""
    weight = layer.weight
    assert isinstance(weight, Tensor)  # the network is in float
    return weight.detach(), _quantizer(layer).scale(weight)


def _largest(layer: nn.Module) -> int:
    return _quantizer(layer).weight_max


def _quantizer(layer: nn.Module) -> WeightFakeQuant:
    return next(each for each in layer.modules() if isinstance(each, WeightFakeQuant))
