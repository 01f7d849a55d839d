"""One pass over calibration samples that tells everything post-training quantization asks of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from edgekd.errors import PreconditionError, fault
from edgekd.quant.fake_quant import ActivationQuantizer
from edgekd.quant.histogram import Histogram
from edgekd.quant.partial import quantized_layers
from edgekd.quant.phases import borrowed
from edgekd.quant.qat import QuantizedModel


@dataclass
class Observed:
    """What the float network showed.

    Attributes:
        histograms: by key of ``model.quantizers``.
        means: mean input per input channel, ``(in,)`` float64, of each quantized layer.
        macs: multiply-accumulates of each quantized layer for one sample.
        samples: how many were seen.
    """

    histograms: dict[str, Histogram] = field(default_factory=dict)
    means: dict[str, Tensor] = field(default_factory=dict)
    macs: dict[str, int] = field(default_factory=dict)
    samples: int = 0


Watch = Callable[[int, int], None]


@torch.no_grad()
def observe(model: QuantizedModel, batches: Iterable[Tensor], watch: Watch | None = None) -> Observed:
    """Run ``model`` in float over ``batches`` ``(batch, ...)`` and count its activations.

    Args:
        watch: called with the number of batches done and 0.

    Raises:
        PreconditionError: no sample, or an activation that is NaN or infinite; names the first such range.
    """
    seen = Observed({key: Histogram() for key in model.quantizers})
    sums: dict[str, tuple[Tensor, int]] = {}
    with borrowed(model), _listening(model, seen, sums):
        for done, batch in enumerate(batches, 1):
            model(batch)
            seen.samples += len(batch)
            if watch is not None:
                watch(done, 0)
    if not seen.samples:
        raise PreconditionError(fault("quantize: calibration", "there is no sample to calibrate with"))
    for key, histogram in seen.histograms.items():
        if not math.isfinite(histogram.low):
            site = key.replace("/", ".")
            raise PreconditionError(
                fault("quantize: calibration", f"the output of {site} is not finite",
                      fix="look for NaN or infinite values in the data and the weights")
            )  # fmt: skip
    seen.means = {name: total / count for name, (total, count) in sums.items()}
    return seen


@contextmanager
def _listening(model: QuantizedModel, seen: Observed, sums: dict[str, tuple[Tensor, int]]) -> Iterator[None]:
    """Hooks on the quantizers and the quantized layers; what they compute is no call of the network."""

    def count(key: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda module, args: seen.histograms[key].add(args[0])

    def sum_up(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            with torch._C.DisableTorchFunction():
                x = args[0].detach().float()
                dims = [0, 2, 3] if isinstance(layer, nn.Conv2d) else list(range(x.ndim - 1))
                channel = 1 if isinstance(layer, nn.Conv2d) else -1
                total, number = sums.get(name, (torch.zeros(x.shape[channel], dtype=torch.float64), 0))
                part = (x.sum(dims) if dims else x).double().cpu()
                sums[name] = (total + part, number + x.numel() // x.shape[channel])
                if name not in seen.macs:
                    weight = layer.weight
                    assert isinstance(weight, Tensor)
                    seen.macs[name] = output.numel() // len(output) * weight.numel() // len(weight)

        return hook

    modules = dict(model.model.named_modules())
    handles = [
        quantizer.register_forward_pre_hook(count(key))
        for key, quantizer in model.quantizers.items()
        if isinstance(quantizer, ActivationQuantizer)
    ]
    handles += [modules[name].register_forward_hook(sum_up(name)) for name in quantized_layers(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
