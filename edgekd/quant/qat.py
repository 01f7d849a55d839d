"""Quantization-aware training: a network whose forward pass is the integer network's, in float.

Weights are fake-quantized by parametrizations chained after the mask; activations by a function mode at
exactly the calls where :mod:`edgekd.quant.placement` put Q/DQ. No module is swapped, so optimizer, EMA,
masks and distillation hooks never notice.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from fnmatch import fnmatch
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgekd.errors import PreconditionError, RecipeError, fault, nearest
from edgekd.models.calls import Site, record_calls
from edgekd.models.evaluating import evaluating
from edgekd.models.fold import fold_batch_norms
from edgekd.quant.call_rules import WEIGHTED
from edgekd.quant.fake_quant import UNBOUNDED, ActivationQuantizer, WeightFakeQuant
from edgekd.quant.placement import INPUT, Placement, Style, plan_placement
from edgekd.quant.schemes import QuantScheme
from edgekd.quant.simulate import FakeQuantMode, range_key
from edgekd.quant.tables import quantize_tables


class QuantizedModel(nn.Module):
    """``model`` under fake-quant. Same input and output as ``model``.

    Attributes:
        model: the network, its convolution and linear weights fake-quantized.
        quantizers: one :class:`ActivationQuantizer` per range.
        placement: which call uses which range.
        float_layers: convolution and linear layers left in float, with the reason.
        weight_max: the largest integer of a weight.
        style: of the placement, as :func:`edgekd.quant.placement.plan_placement` takes it.
    """

    def __init__(
        self,
        model: nn.Module,
        scheme: QuantScheme,
        placement: Placement,
        float_layers: dict[str, str],
        ranges: Literal["moving-average", "learned"],
        weight_max: int,
        style: Style = "auto",
    ) -> None:
        super().__init__()
        self.model = model
        self.weight_max = weight_max
        self.style: Style = style
        self.scheme = scheme
        self.placement = placement
        self.float_layers = float_layers
        self.quantizers = nn.ModuleDict(
            {
                range_key(site): ActivationQuantizer(
                    scheme,
                    ranges,
                    bounds=placement.bounds.get(site, UNBOUNDED),
                    anchored=site in placement.anchored,
                )
                for site in placement.ranges
            }
        )

    def forward(self, x: Tensor) -> Any:
        mode = FakeQuantMode(self)
        with mode.following(self.model):
            return self.model(mode.quantized(INPUT, x))

    def activation_quantizers(self) -> list[ActivationQuantizer]:
        return [q for q in self.quantizers.values() if isinstance(q, ActivationQuantizer)]

    def set_phase(self, phase: Literal["off", "observe", "train", "frozen"]) -> None:
        """``observe``: ranges widen, nothing is quantized. ``train`` / ``frozen``: the integer network."""
        for quantizer in self.activation_quantizers():
            quantizer.phase = phase
        for parametrization in self._weight_quantizers():
            parametrization.enabled = phase in ("train", "frozen")

    def _weight_quantizers(self) -> list[WeightFakeQuant]:
        return [m for m in self.model.modules() if isinstance(m, WeightFakeQuant)]

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor]) -> int:
        """Set every range from real inputs ``(batch, ...)``; returns how many samples were seen.

        The ranges start anew: an earlier calibration leaves nothing behind.

        Raises:
            PreconditionError: no sample, or an activation that is NaN or infinite; names the first such call.
        """
        self.set_phase("observe")
        for quantizer in self.activation_quantizers():
            quantizer.low.zero_()
            quantizer.high.zero_()
        seen = 0
        with evaluating(self):
            for batch in batches:
                self(batch)
                seen += len(batch)
        if not seen:
            raise PreconditionError(fault("quantize: calibration", "there is no sample to calibrate with"))
        for site in self.placement.ranges:
            low, high = self.range_of(site)
            if not (math.isfinite(low) and math.isfinite(high)):
                raise PreconditionError(
                    fault(
                        "quantize: calibration",
                        f"the output of {site} is not finite",
                        got=(low, high),
                        fix="look for NaN or infinite values in the data and the weights",
                    )
                )
        self.set_phase("train")
        return seen

    def range_of(self, site: Site) -> tuple[float, float]:
        """``(low, high)`` of the values at ``site``, as observed or learned."""
        quantizer = self.quantizers[range_key(site)]
        assert isinstance(quantizer, ActivationQuantizer)
        return float(quantizer.low), float(quantizer.high)

    def with_scheme(self, scheme: QuantScheme) -> QuantizedModel:
        """A frozen copy with the same ranges in another runtime's integers."""
        other = copy.deepcopy(self)
        other.scheme = scheme
        for quantizer in other.activation_quantizers():
            quantizer.scheme = scheme
        other.weight_max = min(scheme.weight_max, self.weight_max)
        for parametrization in other._weight_quantizers():
            parametrization.weight_max = other.weight_max
        other.set_phase("frozen")
        return other.eval()


def prepare_qat(
    model: nn.Module,
    example: Tensor,
    scheme: QuantScheme,
    *,
    exclude: Iterable[str] = (),
    ranges: Literal["moving-average", "learned"] = "moving-average",
    weight_bits: int = 8,
    style: Style = "auto",
) -> QuantizedModel:
    """Fold batch norms, register fake-quant of weights and tables after any mask, plan the ranges.

    The structure depends on ``model`` and ``example`` alone, so a saved state can be loaded into a
    freshly prepared one.

    Args:
        model: changed in place and held by the result.
        example: ``(batch, channels, height, width)``.
        exclude: fnmatch patterns of convolutions, linear layers and embeddings that stay in float.
        style: which values carry Q/DQ: :func:`edgekd.quant.placement.plan_placement`.

    Raises:
        RecipeError: an ``exclude`` pattern matches no layer.
    """
    fold_batch_norms(model, example)
    layers = {
        name: m for name, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear, nn.Embedding))
    }
    float_layers: dict[str, str] = {}
    for pattern in exclude:
        matched = [name for name in layers if fnmatch(name, pattern)]
        if not matched:
            raise RecipeError(
                fault("quantize.exclude", "matches no layer", got=pattern, fix=nearest(pattern, layers))
            )
        float_layers.update(dict.fromkeys(matched, f"excluded by the recipe: {pattern}"))
    graph = record_calls(model, example)
    weight_max = min(scheme.weight_max, 2 ** (weight_bits - 1) - 1)
    read = {name for call in graph.calls if call.op in WEIGHTED for name in call.parameters}
    runs = {call.site.module for call in graph.calls if call.op in WEIGHTED}
    for name, layer in layers.items():
        if name in float_layers or name not in runs or isinstance(layer, nn.Embedding):
            continue
        if f"{name}.weight" in read:
            parametrize.register_parametrization(layer, "weight", WeightFakeQuant(weight_max), unsafe=True)
        else:
            float_layers[name] = "forward() computes the weight"
    quantize_tables(model, weight_max, float_layers)
    placement = plan_placement(graph, float_layers, style)
    return QuantizedModel(model, scheme, placement, float_layers, ranges, weight_max, style)
