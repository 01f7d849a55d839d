"""Fake-quant arithmetic with straight-through gradients (Bengio et al. 2013, arXiv 1308.3432).

On a CPU torch's own fake-quant operators take several times as long as the same arithmetic written with
vectorised elementwise operations (24 ms against 3 ms for 3.2 million values, one thread), and a training
step has dozens of them. On a GPU torch's are single kernels and are used. The values are the same:
``(clamp(round(x / scale) + zero_point, qmin, qmax) - zero_point) * scale``, computed in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# A kernel adds the bias to the sum of products in int32. Half of int32 for the bias leaves room for
# 2**30 / (255 * 127) = 33,000 products.
MAX_BIAS = 2**30


def fake_quantize(x: Tensor, scale: float | Tensor, zero_point: int | Tensor, qmin: int, qmax: int) -> Tensor:
    """One range for the whole tensor; the gradient passes where ``x`` rounds to an integer of the range.

    On a GPU ``scale`` and ``zero_point`` are tensors: nothing waits for the device to tell its numbers.
    """
    if isinstance(scale, Tensor) and isinstance(zero_point, Tensor):
        integer = zero_point.round().to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(x.float(), scale, integer, qmin, qmax).to(x.dtype)
    return _PerTensor.apply(x, scale, qmin - zero_point, qmax - zero_point)


def fake_quantize_learned(
    x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int, factor: float
) -> Tensor:
    """As :func:`fake_quantize`, and gradients reach ``scale`` and ``zero_point`` (float scalars).

    LSQ+ (Bhalgat et al., CVPR workshops 2020, arXiv 2004.09576, equations 5 and 6), times ``factor``.
    """
    if x.is_cuda:
        learnable = torch._fake_quantize_learnable_per_tensor_affine
        return learnable(x.float(), scale.reshape(1), zero_point.reshape(1), qmin, qmax, factor).to(x.dtype)
    return _Learned.apply(x, scale, zero_point, qmin, qmax, factor)


def fake_quantize_weight(weight: Tensor, scale: Tensor) -> Tensor:
    """Symmetric, one scale ``(out,)`` per output channel that nothing exceeds: every gradient passes."""
    return _PerChannel.apply(weight, scale.reshape(-1, *[1] * (weight.ndim - 1)))


def fake_quantize_table(table: Tensor, scale: Tensor) -> Tensor:
    """As :func:`fake_quantize_weight` for ``(rows, width)`` with one scale ``(width,)`` a column."""
    return _PerChannel.apply(table, scale)


def fake_quantize_bias(bias: Tensor, step: float | Tensor, weight: Tensor, weight_max: int) -> Tensor:
    """An int32 bias ``(out,)`` with scale ``step * weight scale``; every gradient passes.

    Args:
        step: the scale of the layer's input.
        weight: already fake-quantized: its largest value per channel is ``weight_max`` times its scale.
    """
    return _Bias.apply(bias, step, weight.detach(), weight_max)


def scale_for_bias(scale: Tensor, needed: Tensor) -> Tensor:
    """The weight scale that the file has, where that of a (nearly) dead channel is too small for its bias.

    Args:
        scale: float32 ``(out,)``, one per output channel.
        needed: float64 ``(out,)``, at which the bias is :data:`MAX_BIAS`: ``|bias| / (MAX_BIAS * input scale)``.

    Returns:
        float32 ``(out,)``: ``scale``, or the first number above ``needed`` where that is larger.
    """
    above = torch.nextafter(needed.float(), torch.tensor(torch.inf))
    return torch.where(needed > scale, above, scale)


class _PerTensor(torch.autograd.Function):
    # Python numbers, not tensors, as bounds: clamp with a tensor bound takes a slow path on a CPU.
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.constants = (scale, low, high)
        return _rounded(x, scale, low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        return _inside(gradients[0], x, *ctx.constants), None, None, None


class _Learned(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int, factor: float
    ) -> Tensor:
        step, zero = scale.item(), round(zero_point.item())
        ctx.save_for_backward(x)
        ctx.constants = (step, qmin - zero, qmax - zero, factor)
        return _rounded(x, step, qmin - zero, qmax - zero)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        step, low, high, factor = ctx.constants
        y = _rounded(x, step, low, high)  # not saved: the network may add to its output in place
        inside = _inside(gradients[0], x, step, low, high)
        # d y / d scale is round(v) - v inside, and the integer at the edge minus the zero point outside.
        by_scale = ((gradients[0] * y).sum() - (inside * x).sum()) / step
        by_zero = (inside.sum() - gradients[0].sum()) * step
        return inside, by_scale * factor, by_zero * factor, None, None, None


class _PerChannel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor) -> Tensor:
        return (weight * scale.reciprocal()).round_().mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _Bias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bias: Tensor, step: float | Tensor, weight: Tensor, weight_max: int) -> Tensor:
        scale = (weight.flatten(1).abs().amax(1) / weight_max).double() * step
        scale = scale.float()
        integer = (bias.double() / scale).round_()
        rounded = (integer * scale).to(bias.dtype)
        # A (nearly) dead channel: the file enlarges its scale until the bias fits.
        return torch.where(integer.abs() <= MAX_BIAS, rounded, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return gradients[0], None, None, None


def _rounded(x: Tensor, scale: float, low: float, high: float) -> Tensor:
    return (x.float() * (1.0 / scale)).round_().clamp_(low, high).mul_(scale).to(x.dtype)


def _inside(gradient: Tensor, x: Tensor, scale: float, low: float, high: float) -> Tensor:
    return torch.ops.aten.hardtanh_backward(gradient, x, (low - 0.5) * scale, (high + 0.5) * scale)
