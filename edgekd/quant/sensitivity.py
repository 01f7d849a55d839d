"""What each layer's integers cost: quantize that layer alone and compare the answers with the float network's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekd.quant.fake_quant import WeightFakeQuant
from edgekd.quant.fidelity import answers, fidelity
from edgekd.quant.partial import quantized_layers
from edgekd.quant.phases import borrowed
from edgekd.quant.qat import QuantizedModel
from edgekd.quant.simulate import range_key


@dataclass(frozen=True)
class LayerSensitivity:
    """A layer, or a block of layers that were measured together.

    Attributes:
        name: the layer's, or the block's common prefix.
        layers: what is in it.
        kl: mean divergence of the answers from the float network's (nats) when this alone is quantized.
        mse: squared error of the logits over their variance.
        agreement: share of samples with the same top-1.
    """

    name: str
    layers: tuple[str, ...]
    kl: float
    mse: float
    agreement: float


@torch.no_grad()
def layer_sensitivity(
    model: QuantizedModel,
    batches: Sequence[Tensor],
    *,
    seconds: float = 60.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[LayerSensitivity]:
    """Quantize one layer at a time (its weight and the activation it reads), the costliest first.

    Args:
        model: with ranges, after calibration or after training; unchanged afterwards.
        batches: inputs ``(batch, ...)``.
        seconds: where all layers one by one would take longer, layers are measured in blocks: neighbours in
            the module tree together. One measurement per block is taken in any case.
        progress: called with how many are done, and of how many.
    """
    found = []
    with borrowed(model):
        begun = time.perf_counter()
        reference = answers(model, batches)
        passes = max(1, int(seconds / max(time.perf_counter() - begun, 1e-9)))
        groups = group_layers(quantized_layers(model), passes)
        for done, (name, layers) in enumerate(groups.items(), 1):
            with _only(model, layers):
                close = fidelity(reference, answers(model, batches))
            found.append(LayerSensitivity(name, tuple(layers), close.kl, close.mse, close.agreement))
            if progress is not None:
                progress(done, len(groups))
    return sorted(found, key=lambda each: -each.kl)


def group_layers(names: Sequence[str], most: int) -> dict[str, list[str]]:
    """At most ``most`` groups of layers with a common prefix, where the module tree has so few; one layer a
    group where they all fit."""
    depth = max((name.count(".") for name in names), default=0) + 1
    groups: dict[str, list[str]] = {name: [name] for name in names}
    while len(groups) > most and depth > 1:
        depth -= 1
        groups = {}
        for name in names:
            groups.setdefault(".".join(name.split(".")[:depth]), []).append(name)
    return groups


@contextmanager
def _only(model: QuantizedModel, layers: Sequence[str]) -> Iterator[None]:
    """Everything in float but the weights of ``layers`` and the activations they read."""
    model.set_phase("off")
    inside = set(layers)
    for site, range_site in model.placement.inputs.items():
        if site.module in inside:
            model.quantizers[range_key(range_site)].phase = "frozen"  # type: ignore[assignment]
    modules = dict(model.model.named_modules())
    for name in layers:
        _enable(modules[name])
    try:
        yield
    finally:
        model.set_phase("off")


def _enable(layer: nn.Module) -> None:
    for module in layer.modules():
        if isinstance(module, WeightFakeQuant):
            module.enabled = True
