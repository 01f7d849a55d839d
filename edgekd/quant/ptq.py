"""Post-training quantization of a prepared network: ranges from histograms, biases that undo rounding.

The result is the same :class:`QuantizedModel` that quantization-aware training leaves, so export, parity and
profile do not know the difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from edgekd.errors import RecipeError, fault, nearest
from edgekd.quant.estimators import ESTIMATORS, percentile
from edgekd.quant.fake_quant import ActivationQuantizer, WeightFakeQuant
from edgekd.quant.observe import Observed
from edgekd.quant.partial import quantized_layers
from edgekd.quant.qat import QuantizedModel


@torch.no_grad()
def set_ranges(model: QuantizedModel, observed: Observed, ranges: str, *, share: float = 99.99) -> None:
    """Give every activation its range and freeze the model.

    Args:
        ranges: a name in :data:`ESTIMATORS`.
        share: of ``percentile``.

    Raises:
        RecipeError: no such estimator.
    """
    if ranges not in ESTIMATORS:
        raise RecipeError(
            fault("quantize.ranges", "unknown estimator", got=ranges, fix=nearest(ranges, ESTIMATORS))
        )
    estimate = partial(percentile, share=share) if ranges == "percentile" else ESTIMATORS[ranges]
    for key, quantizer in model.quantizers.items():
        assert isinstance(quantizer, ActivationQuantizer)
        low, high = estimate(observed.histograms[key], model.scheme)
        quantizer.low.fill_(low)
        quantizer.high.fill_(high)
    model.set_phase("frozen")


@torch.no_grad()
def bias_corrections(model: QuantizedModel, observed: Observed) -> dict[str, Tensor]:
    """By layer the mean error ``(out,)`` that rounding its weights makes: what its bias is too large by.

    The error's mean is the rounding error of the weights times the mean input: M. Nagel et al., "Data-Free
    Quantization Through Weight Equalization and Bias Correction", ICCV 2019, arXiv 1906.04721, equation 17,
    with means of real samples. The zeros that padding adds are not counted in the means. Layers without a
    bias are missing: a new parameter would change the structure.
    """
    modules = dict(model.model.named_modules())
    return {
        name: mean_error(layer, observed.means[name]).to(layer.bias)
        for name in quantized_layers(model)
        if isinstance(layer := modules[name], (nn.Conv2d, nn.Linear))
        and layer.bias is not None
        and name in observed.means
    }


@torch.no_grad()
def shift_biases(model: QuantizedModel, shifts: Mapping[str, Tensor], sign: int) -> None:
    """Add ``sign`` times ``shifts`` to the biases of their layers, in place."""
    for name, shift in shifts.items():
        bias = model.model.get_submodule(name).bias
        assert isinstance(bias, Tensor)
        bias.add_(shift, alpha=sign)


def mean_error(layer: nn.Conv2d | nn.Linear, mean: Tensor) -> Tensor:
    """``(out,)`` float64: the mean of the layer's output with rounded weights minus that without.

    Args:
        mean: mean input ``(in,)`` over samples and positions.
    """
    rounding = _rounding(layer).double()
    if isinstance(layer, nn.Linear):
        return rounding @ mean
    kernels = rounding.sum((2, 3))  # (out, in / groups)
    groups = mean.reshape(layer.groups, -1).repeat_interleave(len(kernels) // layer.groups, 0)
    return (kernels * groups).sum(1)


def _rounding(layer: nn.Conv2d | nn.Linear) -> Tensor:
    """The weight on the integer grid minus the weight before rounding; a mask before it stays."""
    quantizers = [module for module in layer.modules() if isinstance(module, WeightFakeQuant)]
    before = [quantizer.enabled for quantizer in quantizers]
    values = []
    for enabled in (True, False):
        for quantizer in quantizers:
            quantizer.enabled = enabled
        values.append(layer.weight.detach().clone())
    for quantizer, enabled in zip(quantizers, before, strict=True):
        quantizer.enabled = enabled
    return values[0] - values[1]
