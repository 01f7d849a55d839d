"""Where a scale per channel can move from an activation into the weights around it, read off the call graph.

A layer norm writes ``x * weight + bias``: dividing both by ``s`` divides its output by ``s``, channel by
channel. When every reader is a linear layer or a convolution (behind operations that only move values), the
readers' weights take ``s`` in, and the network computes the same function.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekd.models.bake import stored_weight
from edgekd.models.calls import Call, CallGraph, record_calls

_READERS = frozenset({"conv2d", "linear"})
_MOVES = frozenset(
    {"flatten", "reshape", "view", "permute", "transpose", "contiguous", "dropout", "roll", "pad", "to", "float",
     "unflatten", "squeeze", "unsqueeze"}
)  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """``norm`` is the name of a layer norm, ``readers`` the names of all layers that read it."""

    norm: str
    readers: tuple[str, ...]


def find_pairs(model: nn.Module, example: Tensor) -> list[Pair]:
    """The layer norms of ``model`` whose output only linear layers and convolutions read.

    Left out: norms without weights, layers that run twice or share their weight, and readers with another
    number of channels than the norm.
    """
    graph = record_calls(model, example)
    uses = Counter(name for call in graph.calls for name in call.parameters)
    modules = dict(model.named_modules())
    pairs = []
    for call in graph.calls:
        name = call.site.module
        norm = modules.get(name)
        weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
        if call.op != "layer_norm" or uses[f"{name}.weight"] != 1 or not isinstance(weight, Tensor):
            continue
        if not isinstance(bias, Tensor) or weight.ndim != 1:
            continue
        readers = _readers(graph, call)
        layers = [modules.get(reader) for reader in readers or ()]
        if readers and all(
            uses[f"{reader}.weight"] == 1 and _inputs_of(layer) == len(weight)
            for reader, layer in zip(readers, layers, strict=True)
        ):
            pairs.append(Pair(name, tuple(readers)))
    return pairs


def _readers(graph: CallGraph, call: Call) -> list[str] | None:
    """Names of the layers that read ``call``'s output; None when anything else reads it as well."""
    found: list[str] = []
    open_calls = [call]
    while open_calls:
        current = open_calls.pop()
        for value in current.outputs:
            if value in graph.result:
                return None
            for reader in graph.consumers(value):
                if reader.op in _MOVES and len(reader.inputs) == 1:
                    open_calls.append(reader)
                elif reader.op in _READERS and reader.inputs == (value,):
                    found.append(reader.site.module)
                else:
                    return None
    return list(dict.fromkeys(found))


def _inputs_of(layer: nn.Module | None) -> int | None:
    if isinstance(layer, nn.Linear):
        return layer.in_features
    return layer.in_channels if isinstance(layer, nn.Conv2d) else None


@torch.no_grad()
def move_scale(model: nn.Module, pair: Pair, scale: Tensor) -> None:
    """Divide the norm's output by ``scale`` ``(channels,)`` and let the readers' weights take it in."""
    norm = model.get_submodule(pair.norm)
    for parameter in (norm.weight, norm.bias):
        assert isinstance(parameter, Tensor)
        parameter.div_(scale.to(parameter))
    for name in pair.readers:
        layer = model.get_submodule(name)
        weight = stored_weight(layer)
        if weight is None:
            assert isinstance(layer.weight, Tensor)
            weight = layer.weight
        weight.mul_(_over_inputs(layer, scale.to(weight), weight))


def _over_inputs(layer: nn.Module, scale: Tensor, weight: Tensor) -> Tensor:
    """``scale`` per input channel, in a shape that multiplies ``weight``."""
    if not isinstance(layer, nn.Conv2d):
        return scale
    groups = layer.groups  # output channels of group g read the g-th part of the inputs
    per_output = scale.reshape(groups, -1).repeat_interleave(len(weight) // groups, 0)
    return per_output.reshape(*per_output.shape, *[1] * (weight.ndim - 2))


def rows(layer: nn.Module) -> Tensor:
    """The layer's weight as ``(rows, in)``: one row for each output channel and kernel position.

    For a grouped convolution the inputs that a row does not read are 0.
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if not isinstance(layer, nn.Conv2d):
        return weight.detach()
    flat = weight.detach().flatten(2).transpose(1, 2)  # (out, positions, in / groups)
    out, positions, inputs = flat.shape
    whole = flat.new_zeros(out, positions, layer.groups, inputs)
    group = torch.arange(out) // (out // layer.groups)
    whole[torch.arange(out), :, group] = flat
    return whole.reshape(out * positions, -1)


def same_function(model: nn.Module, before: Tensor, batch: Tensor, tolerance: float = 1e-3) -> bool:
    """Whether ``model`` still answers ``batch`` as ``before``, up to rounding."""
    with torch.no_grad():
        after = model(batch)
    return bool((after - before).abs().max() <= tolerance * before.abs().max().clamp_min(1e-6))
