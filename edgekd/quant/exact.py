"""The integer network to the last bit: the arithmetic of ONNX Runtime's x86 kernels, in torch.

Fake-quant rounds what float arithmetic gives. The kernels sum integers exactly, multiply once by one float32
and round; an addition rounds after it has added the zero point. Both agree but for values a millionth of a step
from the middle between two integers. That is one value in a million, but each such value moves later ones by a
whole step, and a deep network that was never trained enlarges the difference until no layer's integers are the
same (measured: MobileNetV2 with random weights, one value in 800,000 after the first layer, four in five after
the last). So a file is compared with this arithmetic: what still differs then is a fault, not rounding. What
stays float between the integers follows the runtime where its formula is known
(:mod:`edgekd.quant.float_kernels`).

Formulas: MLAS, ``requantize``, ``qladd``, ``qlmul``, ``qlgavgpool``; checked against ONNX Runtime 1.31 with AVX2
and AVX512 over all pairs of bytes (``tests/quant/test_exact.py``). Scales are settled first
(:mod:`edgekd.quant.settle`), so that Arm's kernels give the same integers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.models.bake import stored_weight
from edgekd.models.calls import Site
from edgekd.quant.byte_kernels import Grid, product_x86, sum_x86
from edgekd.quant.call_rules import gate_of
from edgekd.quant.exact_plan import Kernel
from edgekd.quant.exact_products import exact_products
from edgekd.quant.fake_quant import WeightFakeQuant
from edgekd.quant.float_kernels import FLOAT_KERNELS
from edgekd.quant.gelu import LEAST, MOST, SLOPE, STEPS
from edgekd.quant.hardswish import before_line, gate_of_bytes, on_line
from edgekd.quant.kernels import MAX_BIAS, scale_for_bias
from edgekd.quant.placement import INPUT
from edgekd.quant.qat import QuantizedModel
from edgekd.quant.settle import GATE, grid_of, line_of, settle_scales
from edgekd.quant.simulate import FakeQuantMode


class ExactTwin(nn.Module):
    """A frozen copy of ``model`` whose answers are the file's. Same input and output; no gradients.

    Args:
        model: of a scheme whose biases are integers (ONNX Runtime's).
        example: as for :func:`edgekd.quant.qat.prepare_qat`.
    """

    def __init__(self, model: QuantizedModel, example: Tensor) -> None:
        super().__init__()
        self.owner = copy.deepcopy(model).cpu().eval()
        self.kernels = settle_scales(self.owner, example).kernels
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

    def _rounding(self, range_site: Site, *, follow: bool = True) -> Callable[[Tensor], Tensor]:
        scale, low, high, _ = self._grid(range_site)
        # QuantizeLinear divides; the product with 1 / scale is another number.
        return lambda value: (value.float() / scale).clamp_(low, high).round_().mul_(scale)

    def on_call(self, site: Site, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kernel = self._kernels.get(site)
        if kernel is None:
            return super().on_call(site, self._in_float(site, func), args, kwargs)
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

    def _in_float(self, site: Site, func: Callable[..., Any]) -> Callable[..., Any]:
        """``func``, in the runtime's order of additions where that is known."""
        kernel = FLOAT_KERNELS.get(site.op)
        if kernel is None:
            return func

        def run(*args: Any, **kwargs: Any) -> Any:
            self._silent += 1
            try:
                return kernel(*args, **kwargs)
            finally:
                self._silent -= 1

        return run

    def _computed(
        self, site: Site, kernel: Kernel, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor | None:
        if kernel.kind == "weighted":
            return self._weighted(site, kernel, func, args, kwargs)
        if kernel.kind == "mean":
            return self._mean(kernel, args[0])
        if kernel.kind == "table":
            return self._table(kernel, FLOAT_KERNELS.get(site.op, func), args, kwargs)
        if kernel.kind == "line":
            return self._line(kernel, args[0])
        if kernel.kind == "gated":
            return self._pair(kernel, args[0], self._gate(site, args[0]))
        if kernel.kind == "gelu":
            return self._gelu_bytes(kernel, args[0])
        if kernel.kind == "hardswish":
            return self._hardswish_bytes(kernel, args[0])
        if kernel.kind == "later":
            unscaled: Tensor = args[0] if isinstance(args[0], Tensor) else args[1]
            return unscaled
        if kernel.kind == "scaled":
            product: Tensor = func(*args, **kwargs)
            return product * torch.tensor(kernel.factor, dtype=torch.float32)
        if not all(isinstance(arg, Tensor) for arg in args[:2]) or len(args) > 2 or kwargs:
            return None
        return self._pair(kernel, args[0], args[1])

    def _weighted(
        self, site: Site, kernel: Kernel, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor | None:
        layer = self._owner.model.get_submodule(site.module)
        weight_scale = _weight_scale(layer)
        if weight_scale is None:
            return None
        step = self._grid(kernel.reads[0]).scale
        x = (args[0].float() / step).round_()
        shape = (-1, *[1] * (args[1].ndim - 1))
        weight = (args[1] / weight_scale.reshape(shape)).round_()
        channels = (-1, 1, 1) if weight.ndim == 4 else (-1,)
        bias = args[2] if len(args) > 2 else kwargs.get("bias")
        if kernel.line:
            weight_scale, bias = on_line(weight_scale, bias)
        rest = args[3:]
        options = {key: value for key, value in kwargs.items() if key != "bias"}
        if bias is not None:
            fitting = scale_for_bias(weight_scale, bias.abs().double() / (MAX_BIAS * step))
            weight.mul_((weight_scale.double() / fitting).reshape(shape)).round_()
            weight_scale = fitting
        total = exact_products(lambda a, b: func(a, b, None, *rest, **options), x, weight)
        if bias is not None:
            integer = (bias.double() / (weight_scale.double() * step).float()).round_()
            total = total + integer.reshape(channels)
        factor = weight_scale * step
        if kernel.writes is None:
            return total.float() * factor.reshape(channels)
        scale_out, low, high, _ = self._grid(kernel.writes)
        factor = (factor / torch.tensor(scale_out)).reshape(channels)
        written = (total.float() * factor).clamp_(low, high).round_().mul_(scale_out)
        return before_line(written) if kernel.line else written

    def _mean(self, kernel: Kernel, x: Tensor) -> Tensor:
        read, (scale, low, high, _) = self._grid(kernel.reads[0]), self._grid(kernel.writes)
        count = torch.tensor(float(x.shape[-1] * x.shape[-2]))
        factor = torch.tensor(read.scale) / (torch.tensor(scale) * count)
        total = _integers(x, read).sum((-2, -1), keepdim=kernel.keepdim)
        return (total.float() * factor).clamp_(low, high).round_().mul_(scale)

    def _pair(self, kernel: Kernel, a: Tensor, b: Tensor) -> Tensor:
        (left, right), out = (self._grid(each) for each in kernel.reads), self._grid(kernel.writes)
        combine = sum_x86 if kernel.kind == "add" else product_x86
        return _values(combine(_integers(a, left), _integers(b, right), left, right, out), out)

    def _line(self, kernel: Kernel, x: Tensor) -> Tensor:
        read, out = self._grid(kernel.reads[0]), self._grid(kernel.writes)
        line, offset = line_of(read)
        constant = torch.tensor(float(offset.high), dtype=torch.float64)
        return _values(sum_x86(_integers(x, read), constant, line, offset, out), out)

    def _table(
        self, kernel: Kernel, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        grid = self._grid(kernel.reads[0])
        values = torch.arange(grid.low, grid.high + 1).float().mul_(grid.scale)
        place = (args[0].float() / grid.scale).round_().int().sub_(grid.low)
        return func(values, *args[1:], **kwargs)[place]

    def _gate(self, site: Site, x: Tensor) -> Tensor:
        line = self._kernels.get(gate_of(site))
        if line is not None:
            return self._line(line, x)
        found: Tensor = self.quantized(gate_of(site), torch.sigmoid(x))
        return found

    def _gelu_bytes(self, kernel: Kernel, x: Tensor) -> Tensor:
        read, out = self._grid(kernel.reads[0]), self._grid(kernel.writes)
        integers = _integers(x, read)
        steep = torch.sigmoid(integers.float() * (torch.tensor(read.scale) * torch.tensor(SLOPE)))
        gate = (steep / torch.tensor(1 / STEPS)).round_().clamp_(LEAST, MOST).double() - LEAST
        return _values(product_x86(integers, gate, read, GATE, out), out)

    def _hardswish_bytes(self, kernel: Kernel, x: Tensor) -> Tensor:
        read, out = self._grid(kernel.reads[0]), self._grid(kernel.writes)
        gate, integers = gate_of_bytes(read), _integers(x, read)
        cut = (integers - read.low).clamp_max_(gate.high)
        return _values(product_x86(integers, cut, read, gate, out), out)

    def _grid(self, range_site: Site | None) -> Grid:
        assert range_site is not None
        return grid_of(self._owner, range_site)


def _integers(value: Tensor, grid: Grid) -> Tensor:
    """Less the zero point, float64."""
    return (value.float() / grid.scale).round_().double()


def _values(integers: Tensor, grid: Grid) -> Tensor:
    return integers.float().mul_(grid.scale)


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
