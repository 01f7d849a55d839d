"""SmoothQuant: move the difficulty of outlier channels from activations into weights, in place.

G. Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models",
ICML 2023, arXiv 2211.10438, equation 4: channel ``j`` of a layer norm's output is divided by
``s_j = max|x_j|**alpha / max|w_j|**(1 - alpha)``, and the weights behind it are multiplied by it.

neural-compressor 3.10 has it too, but its module imports ``intel_extension_for_pytorch``, of which there is
none for torch 2.13; so the arithmetic is here, and ``alpha="auto"`` searches per layer what it calls auto-alpha.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import PostconditionError, fault
from edgekd.quant.absorb import Pair, find_pairs, move_scale, rows, same_function
from edgekd.quant.listening import listening

_ALPHAS = tuple(k / 10 for k in range(1, 10))
_ROWS = 512  # input vectors kept per layer for the search
_SMALLEST = 1e-5


@dataclass(frozen=True)
class Smoothed:
    """One layer norm: ``alpha`` is None where leaving it alone was best."""

    norm: str
    readers: tuple[str, ...]
    alpha: float | None


@torch.no_grad()
def smooth(
    model: nn.Module, batches: Sequence[Tensor], example: Tensor, alpha: float | str = 0.5
) -> list[Smoothed]:
    """Smooth every layer norm that allows it; the function of ``model`` stays the same.

    Args:
        model: in eval mode, before fake-quantization; its weights are changed in place.
        batches: inputs ``(batch, ...)``.
        alpha: 0 (weights alone decide) to 1 (activations alone), or ``auto``: what gives each norm's readers
            the smallest error.

    Raises:
        PostconditionError: the network answers otherwise than before.
    """
    pairs = find_pairs(model, example)
    before = model(batches[0])
    largest, kept = _inputs(model, pairs, batches)
    done = []
    for pair in pairs:
        weight = torch.cat([rows(model.get_submodule(reader)) for reader in pair.readers])
        chosen = _best_alpha(weight, largest[pair], kept[pair]) if alpha == "auto" else float(alpha)
        if chosen is not None:
            move_scale(model, pair, scale_of(weight, largest[pair], chosen))
        done.append(Smoothed(pair.norm, pair.readers, chosen))
    if not same_function(model, before, batches[0]):
        raise PostconditionError(
            fault("quantize.smooth", "changed the network's answers", fix="set smooth: null")
        )
    return done


def scale_of(weight: Tensor, largest: Tensor, alpha: float) -> Tensor:
    """Equation 4; ``(in,)``. Channels that are always zero, or never read, keep 1.

    Args:
        weight: ``(rows, in)``.
        largest: absolute maximum of each input channel, ``(in,)``.
    """
    strongest = weight.abs().amax(0)
    scale = largest.clamp_min(_SMALLEST) ** alpha / strongest.clamp_min(_SMALLEST) ** (1 - alpha)
    return torch.where((largest > 0) & (strongest > 0), scale.clamp_min(_SMALLEST), 1.0)


def _best_alpha(weight: Tensor, largest: Tensor, x: Tensor) -> float | None:
    candidates: list[float | None] = [None, *_ALPHAS]
    ones = torch.ones_like(largest)
    scales = [ones if alpha is None else scale_of(weight, largest, alpha) for alpha in candidates]
    errors = [layer_error(weight * scale, x / scale) for scale in scales]
    return candidates[errors.index(min(errors))]


def layer_error(weight: Tensor, x: Tensor) -> float:
    """Mean squared error of ``x @ weight.T`` in 8 bits: a step per tensor for ``x``, per row for ``weight``."""
    low, high = x.amin().clamp_max(0), x.amax().clamp_min(0)
    step = ((high - low) / 255).clamp_min(1e-12)
    zero = (-low / step).round()
    rounded = ((x / step).round() + zero).clamp(0, 255).sub(zero) * step
    steps = (weight.abs().amax(1, keepdim=True) / 127).clamp_min(1e-12)
    return float((rounded @ ((weight / steps).round() * steps).T - x @ weight.T).square().mean())


def _inputs(
    model: nn.Module, pairs: Sequence[Pair], batches: Sequence[Tensor]
) -> tuple[dict[Pair, Tensor], dict[Pair, Tensor]]:
    """Per pair: the absolute maximum of each channel ``(in,)``, and some input vectors ``(n, in)``."""
    largest: dict[Pair, Tensor] = {}
    kept: dict[Pair, list[Tensor]] = {pair: [] for pair in pairs}
    share = max(1, _ROWS // max(len(batches), 1))

    def hook(pair: Pair) -> Any:
        def see(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].detach().float()
            x = (x.movedim(1, -1) if isinstance(layer, nn.Conv2d) else x).flatten(0, -2)
            found = x.abs().amax(0)
            largest[pair] = torch.maximum(largest[pair], found) if pair in largest else found
            kept[pair].append(x[:: max(1, len(x) // share)][:share].clone())

        return see

    with listening([(model.get_submodule(pair.readers[0]), hook(pair)) for pair in pairs]):
        for batch in batches:
            model(batch)
    return largest, {pair: torch.cat(vectors) for pair, vectors in kept.items()}
