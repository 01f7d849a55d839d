"""The two simulations of integers: weights per output channel, activations per tensor.

Both round in the forward pass and let the gradient through unchanged inside the range (straight-through
estimator, Bengio et al. 2013, arXiv 1308.3432). The state that is learned is a *range*, not a scale, so
that one trained network can be written for a runtime with another integer type.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from edgekd.quant.schemes import QuantScheme

_TINY = 1e-8


class WeightFakeQuant(nn.Module):
    """Parametrization: symmetric per-output-channel fake-quant. Register it after the mask.

    ``scale[o] = max |weight[o]| / weight_max`` follows the weight at every step, so a zero stays exactly
    zero and the largest weight of a channel is never clipped.
    """

    def __init__(self, weight_max: int) -> None:
        super().__init__()
        self.weight_max = weight_max
        self.enabled = True

    def scale(self, weight: Tensor) -> Tensor:
        """``(out,)`` float32, detached."""
        return weight.detach().flatten(1).abs().amax(1).clamp_min(_TINY) / self.weight_max

    def forward(self, weight: Tensor) -> Tensor:
        if not self.enabled:
            return weight
        scale = self.scale(weight)
        zero_point = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(
            weight, scale, zero_point, 0, -self.weight_max, self.weight_max
        )


class ActivationQuantizer(nn.Module):
    """One tensor's range ``[low, high]`` (always containing 0) and its fake-quant.

    Phases: ``observe`` widens the range and does not quantize (calibration); ``train`` quantizes, and
    follows the batch by an exponential moving average or learns the range by gradient; ``frozen``.

    Gradients of a learned range follow LSQ+ (Bhalgat et al., CVPR workshops 2020, arXiv 2004.09576),
    expressed in ``low`` and ``high`` instead of scale and offset.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self, scheme: QuantScheme, ranges: Literal["moving-average", "learned"], momentum: float = 0.01
    ) -> None:
        super().__init__()
        self.scheme = scheme
        self.momentum = momentum
        self.learned = ranges == "learned"
        self.phase: Literal["off", "observe", "train", "frozen"] = "observe"
        for name in ("low", "high"):
            if self.learned:
                setattr(self, name, nn.Parameter(torch.zeros(())))
            else:
                self.register_buffer(name, torch.zeros(()))

    def scale_and_zero_point(self) -> tuple[Tensor, Tensor]:
        """``scale`` float32 and ``zero_point`` float32 holding an integer, both scalars."""
        qmin, qmax = self.scheme.activation_min, self.scheme.activation_max
        low, high = self.low.clamp_max(0.0), self.high.clamp_min(0.0)
        if self.scheme.symmetric:
            scale = (torch.maximum(-low, high) / qmax).clamp_min(_TINY)
            return scale, torch.zeros_like(scale)
        scale = ((high - low) / (qmax - qmin)).clamp_min(_TINY)
        return scale, qmin - low / scale

    def numbers(self) -> tuple[float, int]:
        """The scale and zero point that go into a file. The scale is a float32 exactly."""
        with torch.no_grad():
            scale, zero_point = self.scale_and_zero_point()
        return float(scale), round(float(zero_point))

    def forward(self, x: Tensor) -> Tensor:
        if self.phase == "off":
            return x
        if self.phase == "observe":
            self._widen(x)
            return x
        if self.phase == "train" and self.training and not self.learned:
            self._follow(x)
        qmin, qmax = self.scheme.activation_min, self.scheme.activation_max
        if torch.jit.is_tracing():
            scale_number, zero_number = self.numbers()
            return torch.fake_quantize_per_tensor_affine(x, scale_number, zero_number, qmin, qmax)
        scale, zero_point = self.scale_and_zero_point()
        if self.learned and self.phase == "train" and torch.is_grad_enabled():
            factor = 1.0 / (x.numel() * qmax) ** 0.5
            return torch._fake_quantize_learnable_per_tensor_affine(
                x, scale.reshape(1), zero_point.reshape(1), qmin, qmax, factor
            )
        integer = zero_point.round().to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(x, scale.detach(), integer.detach(), qmin, qmax)

    @torch.no_grad()
    def _widen(self, x: Tensor) -> None:
        low, high = torch.aminmax(x)
        self.low.copy_(torch.minimum(self.low, low))
        self.high.copy_(torch.maximum(self.high, high))

    @torch.no_grad()
    def _follow(self, x: Tensor) -> None:
        low, high = torch.aminmax(x)
        self.low.lerp_(low.clamp_max(0.0).to(self.low.dtype), self.momentum)
        self.high.lerp_(high.clamp_min(0.0).to(self.high.dtype), self.momentum)
