"""The forward pass of the integer network, in float: a function mode that rounds at the planned calls."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from edgekd.models.calls import CallMode, Site
from edgekd.quant.call_rules import GATES, gate_of
from edgekd.quant.fake_quant import ActivationQuantizer
from edgekd.quant.gelu import gelu_gate
from edgekd.quant.kernels import fake_quantize_bias

if TYPE_CHECKING:
    from edgekd.quant.qat import QuantizedModel


def range_key(site: Site) -> str:
    """A ModuleDict key: no dots."""
    return f"{site.module.replace('.', '/') or 'root'}:{site.op}:{site.nth}"


class FakeQuantMode(CallMode):
    def __init__(self, owner: QuantizedModel) -> None:
        super().__init__()
        self._owner = owner
        self._points = owner.placement.points
        # While torch traces, the bias stays float: the file's passes round it.
        rounds = owner.scheme.quantize_bias and not torch.jit.is_tracing()  # type: ignore[attr-defined]
        self._inputs = owner.placement.inputs if rounds else {}
        # On bytes without a sign: TensorRT has a GELU of its own.
        self._gelus = owner.placement.gelus if not owner.scheme.symmetric else frozenset()

    def quantized(self, site: Site, value: Any) -> Any:
        range_site = self._points.get(site)
        if range_site is None:
            return value
        # Parts of a concatenation do not tell its range: their own would pull a moving average to theirs.
        return self._rounded(range_site, value, follow=site == range_site or range_site not in self._points)

    def _rounded(self, range_site: Site, value: Any, *, follow: bool = True) -> Any:
        rounding = self._rounding(range_site, follow=follow)
        self._silent += 1  # the simulation's own tensor calls are not calls of the network
        try:
            if isinstance(value, (tuple, list)):
                return type(value)(rounding(item) for item in value)
            return rounding(value)
        finally:
            self._silent -= 1

    def _rounding(self, range_site: Site, *, follow: bool = True) -> Callable[[Tensor], Tensor]:
        quantizer = self._owner.quantizers[range_key(range_site)]
        return quantizer if follow else partial(quantizer, follow=False)

    def on_call(self, site: Site, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        entry = self._owner.placement.entries.get(site)
        if entry is not None:
            args = (self._rounded(entry, args[0]), *args[1:])
        range_site = self._inputs.get(site)
        if range_site is not None:
            args, kwargs = self._with_integer_bias(range_site, args, kwargs)
        if site.op in GATES and gate_of(site) in self._points:
            return self.quantized(site, self._gated(site, func, args, kwargs))
        if site in self._owner.placement.hardswishes:
            return self.quantized(site, self._by_gate(torch.nn.functional.hardsigmoid, func, args, kwargs))
        if site in self._gelus:
            return self.quantized(site, self._by_gate(gelu_gate, func, args, kwargs))
        return self.quantized(site, func(*args, **kwargs))

    def _by_gate(
        self, gate: Callable[[Tensor], Tensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """``x * gate(x)`` in the place of ``func``, as the file has it."""
        phase = self._owner.activation_quantizers()[0].phase
        if phase not in ("train", "frozen"):
            return func(*args, **kwargs)
        self._silent += 1
        try:
            return args[0] * gate(args[0])
        finally:
            self._silent -= 1

    def _gated(self, site: Site, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``x * gate(x)`` with the gate quantized, as the file has it."""
        x = args[0]
        gate = torch.sigmoid(x) if GATES[site.op] == "sigmoid" else torch.nn.functional.hardsigmoid(x)
        gate = self.quantized(gate_of(site), gate)
        phase = self._owner.activation_quantizers()[0].phase
        return x * gate if phase in ("train", "frozen") else func(*args, **kwargs)

    def _with_integer_bias(
        self, range_site: Site, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The kernel adds an int32 bias. Its rounding is small, but it decides ties, and every decision that
        differs from the file's moves later layers by a whole step."""
        quantizer = self._owner.quantizers[range_key(range_site)]
        assert isinstance(quantizer, ActivationQuantizer)
        bias = args[2] if len(args) > 2 else kwargs.get("bias")
        if quantizer.phase not in ("train", "frozen") or bias is None:
            return args, kwargs
        self._silent += 1
        try:
            bias = fake_quantize_bias(bias, quantizer.step(bias), args[1], self._owner.weight_max)
        finally:
            self._silent -= 1
        if len(args) > 2:
            return (*args[:2], bias, *args[3:]), kwargs
        return args, {**kwargs, "bias": bias}
