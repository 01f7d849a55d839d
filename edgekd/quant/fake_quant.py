"""The two simulations of integers: weights per output channel, activations per tensor.

The state that is learned is a *range*, not a scale, so that one trained network can be written for a
runtime with another integer type. Gradients: :mod:`edgekd.quant.kernels`.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.quant.kernels import fake_quantize, fake_quantize_learned, fake_quantize_weight
from edgekd.quant.schemes import QuantScheme

_TINY = 1e-8
UNBOUNDED = (-math.inf, math.inf)


class WeightFakeQuant(nn.Module):
    """Parametrization: symmetric per-output-channel fake-quant. Register it after the mask.

    ``scale[o] = max |weight[o]| / weight_max`` follows the weight at every step, so a zero stays exactly
    zero and the largest weight of a channel is never clipped.

    Attributes:
        axis: along which the scales lie.
    """

    axis = 0

    def __init__(self, weight_max: int) -> None:
        super().__init__()
        self.weight_max = weight_max
        self.enabled = True

    def scale(self, weight: Tensor) -> Tensor:
        """``(out,)`` float32, detached. A channel without weights takes the scale of the strongest one: a
        tiny scale would push its bias out of int32 (ONNX Runtime then answers wrongly, without a word)."""
        largest = weight.detach().flatten(1).abs().amax(1)
        strongest = largest.amax()
        strongest = torch.where(strongest > 0, strongest, 1.0)
        return torch.where(largest > 0, largest, strongest) / self.weight_max

    def forward(self, weight: Tensor) -> Tensor:
        if not self.enabled:
            return weight
        return fake_quantize_weight(weight, self.scale(weight))


class ActivationQuantizer(nn.Module):
    """One tensor's range ``[low, high]`` (always containing 0) and its fake-quant.

    Phases: ``observe`` widens the range and does not quantize (calibration); ``train`` quantizes, and
    follows the batch by an exponential moving average or learns the range by gradient; ``frozen``.

    Args:
        bounds: the tensor never leaves this interval, so neither does the range.
        momentum: of the moving average, per training step.
        anchored: the range of bytes without a sign begins at the lower bound, a whole number of steps below zero,
            whatever was seen (:mod:`edgekd.quant.hardswish`); else where the values do.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        scheme: QuantScheme,
        ranges: Literal["moving-average", "learned"],
        *,
        bounds: tuple[float, float] = UNBOUNDED,
        momentum: float = 0.01,
        anchored: bool = False,
    ) -> None:
        super().__init__()
        self.scheme = scheme
        self.momentum = momentum
        self.anchored = anchored
        self.bounds = (min(bounds[0], 0.0), max(bounds[1], 0.0))
        self.learned = ranges == "learned"
        self.phase: Literal["off", "observe", "train", "frozen"] = "observe"
        for name in ("low", "high"):
            if self.learned:
                setattr(self, name, nn.Parameter(torch.zeros(())))
            else:
                self.register_buffer(name, torch.zeros(()))

    def numbers(self) -> tuple[float, int]:
        """The scale (a float32 exactly) and the zero point: of the simulation, and of the file."""
        qmin, qmax = self.scheme.activation_min, self.scheme.activation_max
        low, high = self._limits()
        if self.scheme.symmetric:
            return float(np.float32(_extent(max(-low, high)) / qmax)), 0
        if self.anchored:
            steps = round(-self.bounds[0] * (qmax - qmin) / (high - self.bounds[0]))
            return float(np.float32(-self.bounds[0] / steps)), qmin + steps
        scale = float(np.float32(_extent(high - low) / (qmax - qmin)))
        return scale, min(max(round(qmin - low / scale), qmin), qmax)

    @torch.no_grad()
    def narrow(self, share: float) -> None:
        """Shrink the range to ``share`` of itself, which leaves the zero point where it is."""
        low, high = self._limits()
        self.low.fill_(low * share)
        self.high.fill_(high * share)

    def _limits(self) -> tuple[float, float]:
        low = min(max(self.low.item(), self.bounds[0]), 0.0)
        return low, max(min(self.high.item(), self.bounds[1]), 0.0)

    def step(self, like: Tensor) -> float | Tensor:
        """The scale; where ``like`` is on a GPU a tensor there, so that nothing waits for its number."""
        if like.is_cuda:
            with torch.no_grad():
                return self._differentiable()[0]
        return self.numbers()[0]

    def forward(self, x: Tensor, follow: bool = True) -> Tensor:
        """Args:
        follow: whether ``x`` moves an averaged range.
        """
        if self.phase == "off":
            return x
        if self.phase == "observe":
            self._widen(x)
            return x
        if follow and self.phase == "train" and self.training and not self.learned:
            self._follow(x)
        qmin, qmax = self.scheme.activation_min, self.scheme.activation_max
        if self.learned and self.phase == "train" and torch.is_grad_enabled():
            factor = 1.0 / (x.numel() * qmax) ** 0.5
            return fake_quantize_learned(x, *self._differentiable(), qmin, qmax, factor)
        if x.is_cuda:
            with torch.no_grad():
                tensors = self._differentiable()
            return fake_quantize(x, *tensors, qmin, qmax)
        scale, zero_point = self.numbers()
        if torch.jit.is_tracing():  # type: ignore[attr-defined]
            return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, qmin, qmax)
        return fake_quantize(x, scale, zero_point, qmin, qmax)

    def _differentiable(self) -> tuple[Tensor, Tensor]:
        """:meth:`numbers` as float32 scalars that pass gradients to ``low`` and ``high``; not rounded."""
        qmin, qmax = self.scheme.activation_min, self.scheme.activation_max
        low = _within(self.low, self.bounds[0], 0.0)
        high = _within(self.high, 0.0, self.bounds[1])
        if self.scheme.symmetric:
            extent = torch.maximum(-low, high)
            scale = torch.where(extent > _TINY, extent, 1.0) / qmax
            return scale, torch.zeros_like(scale)
        if self.anchored:
            # No gradient reaches ``low``, but a parameter without any stops distributed training.
            steps = -self.bounds[0] * (qmax - qmin) / (high - self.bounds[0] + 0.0 * self.low)
            steps = steps + (steps.round() - steps).detach()
            return -self.bounds[0] / steps, qmin + steps
        extent = high - low
        scale = torch.where(extent > _TINY, extent, 1.0) / (qmax - qmin)
        return scale, qmin - low / scale

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


def _extent(width: float) -> float:
    """A tensor that was always zero has no range; any scale represents it."""
    return width if width > _TINY else 1.0


def _within(value: Tensor, low: float, high: float) -> Tensor:
    """``value`` cut to ``[low, high]``; the gradient passes, so that a learned range can come back."""
    return value + (value.clamp(low, high) - value).detach()
