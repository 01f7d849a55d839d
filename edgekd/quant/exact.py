"""The integer network to the last bit: the arithmetic of ONNX Runtime's x86 kernels, in torch.

Fake-quant rounds what float arithmetic gives. The kernels sum integers exactly, multiply once by one float32
and round; an addition rounds after it has added the zero point. Both agree but for values a millionth of a step
from the middle between two integers. That is one value in a million, but each such value moves later ones by a
whole step, and a deep network that was never trained enlarges the difference until no layer's integers are the
same (measured: MobileNetV2 with random weights, one value in 800,000 after the first layer, four in five after
the last). So a file is compared with this arithmetic: what still differs then is a fault, not rounding.

Formulas: MLAS, ``requantize``, ``qladd``, ``qlmul``, ``qlgavgpool``; checked against ONNX Runtime 1.31 with AVX2
and AVX512 over all pairs of bytes (``tests/quant/test_exact.py``). Arm's kernels break ties otherwise.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.models.bake import stored_weight
from edgekd.models.calls import Site, record_calls
from edgekd.quant.exact_plan import Kernel, plan_kernels
from edgekd.quant.fake_quant import ActivationQuantizer, WeightFakeQuant
from edgekd.quant.kernels import MAX_BIAS
from edgekd.quant.placement import INPUT
from edgekd.quant.qat import QuantizedModel
from edgekd.quant.simulate import FakeQuantMode, range_key

_FLOAT_EXACT = 2**24  # integers below are float32 numbers


class ExactTwin(nn.Module):
    """A frozen copy of ``model`` whose answers are the file's. Same input and output; no gradients.

    Args:
        model: of a scheme whose biases are integers (ONNX Runtime's).
        example: as for :func:`edgekd.quant.qat.prepare_qat`.
    """

    def __init__(self, model: QuantizedModel, example: Tensor) -> None:
        super().__init__()
        self.owner = copy.deepcopy(model).cpu().eval()
        self.owner.set_phase("off")
        self.kernels = plan_kernels(record_calls(self.owner.model, example), self.owner.placement)
        self.owner.set_phase("frozen")

    @torch.no_grad()
    def forward(self, x: Tensor) -> Any:
        mode = _ExactMode(self.owner, self.kernels)
        with mode.following(self.owner.model):
            return self.owner.model(mode.rounded_input(x))


class _ExactMode(FakeQuantMode):
    def __init__(self, owner: QuantizedModel, kernels: dict[Site, Kernel]) -> None:
        super().__init__(owner)
        self._kernels = kernels

    def rounded_input(self, x: Tensor) -> Tensor:
        found: Tensor = self.quantized(INPUT, x)
        return found

    def _rounding(self, range_site: Site) -> Callable[[Tensor], Tensor]:
        scale, low, high, _ = self._numbers(range_site)
        # QuantizeLinear divides; the product with 1 / scale is another number.
        return lambda value: (value.float() / scale).clamp_(low, high).round_().mul_(scale)

    def on_call(self, site: Site, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kernel = self._kernels.get(site)
        if kernel is None:
            return super().on_call(site, func, args, kwargs)
        entry = self._owner.placement.entries.get(site)
        if entry is not None:
            args = (self._rounded(entry, args[0]), *args[1:])
        self._silent += 1
        try:
            result = self._computed(site, kernel, func, args, kwargs)
        finally:
            self._silent -= 1
        if result is None:
            return super().on_call(site, func, args, kwargs)
        return self.quantized(site, result)

    def _computed(
        self, site: Site, kernel: Kernel, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor | None:
        if kernel.kind == "weighted":
            return self._weighted(site, kernel, func, args, kwargs)
        assert kernel.writes is not None
        if kernel.kind == "mean":
            return self._mean(kernel, args[0])
        if not all(isinstance(arg, Tensor) for arg in args[:2]) or len(args) > 2 or kwargs:
            return None
        combine = self._sum if kernel.kind == "add" else self._product
        return combine(kernel, args[0], args[1])

    def _weighted(
        self, site: Site, kernel: Kernel, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor | None:
        layer = self._owner.model.get_submodule(site.module)
        weight_scale = _weight_scale(layer)
        if weight_scale is None:
            return None
        step = self._numbers(kernel.reads[0])[0]
        x = (args[0].float() / step).round_()
        shape = (-1, *[1] * (args[1].ndim - 1))
        weight = (args[1] / weight_scale.reshape(shape)).round_()
        channels = (-1, 1, 1) if weight.ndim == 4 else (-1,)
        bias = args[2] if len(args) > 2 else kwargs.get("bias")
        rest = args[3:]
        options = {key: value for key, value in kwargs.items() if key != "bias"}
        total = exact_products(lambda a, b: func(a, b, None, *rest, **options), x, weight)
        if bias is not None:
            scale = (weight_scale.double() * step).float()
            integer = (bias.double() / scale).round_()
            if integer.abs().max() > MAX_BIAS:
                return None  # the file enlarges the scale of such a channel
            total = total + integer.reshape(channels)
        factor = weight_scale * step
        if kernel.writes is None:
            return total.float() * factor.reshape(channels)
        scale_out, low, high, _ = self._numbers(kernel.writes)
        factor = (factor / torch.tensor(scale_out)).reshape(channels)
        return (total.float() * factor).clamp_(low, high).round_().mul_(scale_out)

    def _mean(self, kernel: Kernel, x: Tensor) -> Tensor:
        step, scale, low, high = self._numbers(kernel.reads[0])[0], *self._numbers(kernel.writes)[:3]  # type: ignore[arg-type]
        count = torch.tensor(float(x.shape[-1] * x.shape[-2]))
        factor = torch.tensor(step) / (torch.tensor(scale) * count)
        total = (x.float() / step).round_().double().sum((-2, -1), keepdim=kernel.keepdim)
        return (total.float() * factor).clamp_(low, high).round_().mul_(scale)

    def _sum(self, kernel: Kernel, a: Tensor, b: Tensor) -> Tensor:
        (sa, _, _, za), (sb, _, _, zb) = (self._numbers(each) for each in kernel.reads)
        sc, low, high, zc = self._numbers(kernel.writes)  # type: ignore[arg-type]
        ra, rb = (float(torch.tensor(each) / torch.tensor(sc)) for each in (sa, sb))
        # Fused multiply-adds: float64 holds the products exactly, one rounding to float32 each.
        shift = _single(ra * za + _single(rb * zb))
        fixed = _single(zc - shift)
        first = ((b.float() / sb).round_().double() + zb).mul_(rb).add_(fixed).float()
        both = ((a.float() / sa).round_().double() + za).mul_(ra) + first.double()
        return both.float().round_().clamp_(low + zc, high + zc).sub_(zc).mul_(sc)

    def _product(self, kernel: Kernel, a: Tensor, b: Tensor) -> Tensor:
        (sa, *_), (sb, *_) = (self._numbers(each) for each in kernel.reads)
        sc, low, high, zc = self._numbers(kernel.writes)  # type: ignore[arg-type]
        factor = torch.tensor(sa) * torch.tensor(sb) / torch.tensor(sc)
        product = (a.float() / sa).round_() * (b.float() / sb).round_()
        return (product * factor + zc).round_().clamp_(low + zc, high + zc).sub_(zc).mul_(sc)

    def _numbers(self, range_site: Site) -> tuple[float, int, int, int]:
        """Scale, least and largest integer less the zero point, zero point."""
        quantizer = self._owner.quantizers[range_key(range_site)]
        assert isinstance(quantizer, ActivationQuantizer)
        scale, zero = quantizer.numbers()
        scheme = self._owner.scheme
        return scale, scheme.activation_min - zero, scheme.activation_max - zero, zero


def _single(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float64).float())


def _weight_scale(layer: nn.Module) -> Tensor | None:
    """``(out,)``: that of the file, from the weight before it was rounded."""
    weight = stored_weight(layer)
    if weight is None:
        return None
    for step in layer.parametrizations["weight"]:  # type: ignore[index]
        if isinstance(step, WeightFakeQuant):
            return step.scale(weight) if step.axis == 0 else None
        weight = step(weight)
    return None


def exact_products(func: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor) -> Tensor:
    """``func`` of two tensors of integers, float64: in float32 parts whose sums stay exact, or in float64 at once."""
    most = float(x.abs().max()) * float(weight.abs().flatten(1).sum(1).max())
    if most < _FLOAT_EXACT:
        return func(x, weight).double()
    if (
        weight.ndim == 4 and weight.shape[1] != x.shape[1]
    ):  # grouped: a part of the channels is no convolution
        return func(x.double(), weight.double())
    parts = int(most // _FLOAT_EXACT) + 1
    pieces = zip(
        x.tensor_split(parts, -1 if weight.ndim == 2 else 1), weight.tensor_split(parts, 1), strict=True
    )
    return torch.stack([exact_products(func, a, b) for a, b in pieces if b.numel()]).sum(0)
