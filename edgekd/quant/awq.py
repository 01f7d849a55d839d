"""AWQ: weights that large activations meet keep more resolution, and ranges shrink where that pays.

J. Lin et al., "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration", MLSys 2024,
arXiv 2306.00978: before rounding, a layer norm's output is divided by a scale per channel and the weights
behind it are multiplied by it; the scale's exponent and the share of each block's range that is kept are found
by the error of the layer's output. neural-compressor 3.10 has it too, but its search rounds to 4 bits whatever
was asked (it passes ``num_bits`` to a function whose parameter is ``bits``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from edgekd.errors import PostconditionError, fault
from edgekd.models.layer_calls import see_inputs
from edgekd.quant.absorb import find_pairs, move_scale, same_function
from edgekd.quant.weight_blocks import Blocks

_EXPONENTS = tuple(k / 20 for k in range(20))
_QUANTILES = tuple(1 - k / 100 for k in range(0, 21, 2))
_ROWS = 512  # input vectors kept per layer
_SMALLEST = 1e-4

Rounding = Callable[..., Blocks]


def scale_channels(
    model: nn.Module, layers: Sequence[str], batches: Sequence[Tensor], example: Tensor, rounded: Rounding
) -> dict[str, Tensor]:
    """Move scales from layer norms into ``layers``; the function of ``model`` stays the same.

    Returns:
        Some inputs ``(n, in)`` of every layer, after scaling.

    Raises:
        PostconditionError: the network answers otherwise than before.
    """
    before = model(batches[0])
    inputs = _inputs(model, layers, batches)
    for pair in find_pairs(model, example):
        if not set(pair.readers) <= set(layers):
            continue
        x = inputs[pair.readers[0]]
        weight = torch.cat([_weight(model, reader) for reader in pair.readers])
        scale = _best_scale(weight, x, rounded)
        if scale is not None:
            move_scale(model, pair, scale)
            inputs |= dict.fromkeys(pair.readers, x / scale)
    if not same_function(model, before, batches[0]):
        raise PostconditionError(
            fault("quantize: awq", "changed the network's answers", fix="set algorithm: rtn")
        )
    return inputs


def shrink_ranges(layer: nn.Linear, x: Tensor, rounded: Rounding) -> float:
    """The share of each block's range, 0.8 to 1, whose rounding changes the output for ``x`` least."""
    weight = layer.weight.detach()
    errors = [_error(weight, rounded(weight, quantile).values(), x) for quantile in _QUANTILES]
    return _QUANTILES[errors.index(min(errors))]


def _best_scale(weight: Tensor, x: Tensor, rounded: Rounding) -> Tensor | None:
    """``(in,)``, or None where scaling does not help: ``mean|x|**a / mean relative |w|**(1 - a)``."""
    strong = x.abs().mean(0).clamp_min(_SMALLEST)
    heavy = (
        (weight.abs() / weight.abs().amax(1, keepdim=True).clamp_min(_SMALLEST)).mean(0).clamp_min(_SMALLEST)
    )
    best, chosen = _error(weight, rounded(weight).values(), x), None
    for exponent in _EXPONENTS:
        scale = strong**exponent / heavy ** (1 - exponent)
        scale = (scale / (scale.amax() * scale.amin()).sqrt()).clamp_min(_SMALLEST)
        error = _error(weight, rounded(weight * scale).values() / scale, x)
        if error < best:
            best, chosen = error, scale
    return chosen


def _error(weight: Tensor, other: Tensor, x: Tensor) -> float:
    return float((x @ (other - weight).T).square().mean())


def _weight(model: nn.Module, layer: str) -> Tensor:
    weight = model.get_submodule(layer).weight
    assert isinstance(weight, Tensor)
    return weight.detach()


def _inputs(model: nn.Module, layers: Sequence[str], batches: Sequence[Tensor]) -> dict[str, Tensor]:
    """Some input vectors of every layer, ``(n, in)``, evenly from all batches."""
    kept: dict[str, list[Tensor]] = {name: [] for name in layers}
    share = max(1, _ROWS // len(batches))

    def keep(name: str, x: Tensor) -> None:
        x = x.float().flatten(0, -2)
        kept[name].append(x[:: max(1, len(x) // share)][:share].clone())

    see_inputs(model, batches, {name: partial(keep, name) for name in layers})
    return {name: torch.cat(vectors) for name, vectors in kept.items()}
