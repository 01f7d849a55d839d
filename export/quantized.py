"""A trained :class:`QuantizedModel` as a module whose trace has Q/DQ at exactly the trained places."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgekd.models.bake import bake_parametrizations, stored_weight
from edgekd.models.calls import Site
from edgekd.quant.fake_quant import WeightFakeQuant
from edgekd.quant.qat import QuantizedModel
from edgekd.quant.settle import settle_scales


class _WrittenWeight(nn.Module):
    """Fake-quant with a constant scale: traced as QuantizeLinear, DequantizeLinear on an initialiser.

    The range is the full int8 because that is the only one ONNX knows; the values are inside it already.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, scale: Tensor, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.zeros_like(scale, dtype=torch.int32))

    def forward(self, weight: Tensor) -> Tensor:
        return torch.fake_quantize_per_channel_affine(
            weight, self.scale, self.zero_point, self.axis, -128, 127
        )


def frozen_for_export(model: QuantizedModel, example: Tensor) -> tuple[QuantizedModel, tuple[Site, ...]]:
    """A copy on the CPU with baked weights: masks applied, scales constant, ranges frozen and settled; and the
    operations that Arm's kernels may still round otherwise than x86's.

    Baking first (mask and fake-quant leave plain values), then writing the same scale again, makes the
    file's integers the integers that were trained.
    """
    frozen = copy.deepcopy(model).cpu().eval()
    apart = settle_scales(frozen, example).apart
    write_scales(frozen.model)
    return frozen, apart


def write_scales(model: nn.Module) -> None:
    """Bake every parametrization of ``model``, in place, and let weights with a scale be traced with it."""
    scales = {layer: found for layer in model.modules() if (found := _weight_scale(layer)) is not None}
    bake_parametrizations(model)
    for layer, (scale, axis) in scales.items():
        parametrize.register_parametrization(layer, "weight", _WrittenWeight(scale, axis), unsafe=True)


@torch.no_grad()
def _weight_scale(layer: nn.Module) -> tuple[Tensor, int] | None:
    """The scale that fake-quant uses: that of the weight as the parametrizations before it leave it; its axis."""
    weight = stored_weight(layer)
    if weight is None:
        return None
    chains = layer.parametrizations
    assert isinstance(chains, nn.ModuleDict)
    for parametrization in chains["weight"]:  # type: ignore[attr-defined]
        if isinstance(parametrization, WeightFakeQuant):
            return parametrization.scale(weight), parametrization.axis
        weight = parametrization(weight)
    return None
