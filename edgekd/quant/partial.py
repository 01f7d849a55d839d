"""A trained integer network with some of its layers back in float, for files that mix both."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping

from torch import Tensor, nn

from edgekd.errors import PreconditionError, fault
from edgekd.models.bake import bake_parametrizations
from edgekd.models.calls import record_calls
from edgekd.quant.fake_quant import WeightFakeQuant
from edgekd.quant.placement import plan_placement
from edgekd.quant.qat import QuantizedModel
from edgekd.quant.simulate import range_key


def leave_in_float(
    model: QuantizedModel,
    layers: Mapping[str, str],
    example: Tensor,
    *,
    blocks: Collection[str] = (),
    unrounded: bool = False,
) -> QuantizedModel:
    """A frozen copy in which ``layers`` compute in float.

    Their weights keep the values they were trained to have: those of the integer grid.

    Args:
        layers: names of convolution and linear layers, with the reason.
        example: as for :func:`edgekd.quant.qat.prepare_qat`.
        blocks: modules whose sums and products compute in float too. A float layer between two integer
            tensors gains nothing: ONNX Runtime quantizes its weight anew.
        unrounded: the weights of ``layers`` leave the integer grid: those from before post-training
            quantization, which has trained none for it.

    Raises:
        PreconditionError: a name is no quantized layer, or the smaller network would need a range that was
            never trained.
    """
    other = copy.deepcopy(model).cpu().eval()
    other.set_phase("off" if unrounded else "frozen")
    modules = dict(other.model.named_modules())
    for name in layers:
        layer = modules.get(name)
        if layer is None or not _quantized(layer):
            raise PreconditionError(fault("quantize: float layers", "is no quantized layer", got=name))
        bake_parametrizations(layer)
    other.float_layers = {**model.float_layers, **layers}
    other.set_phase("off")
    graph = record_calls(other.model, example)
    placement = plan_placement(graph, {*other.float_layers, *blocks}, model.style)
    missing = [site for site in placement.ranges if range_key(site) not in other.quantizers]
    if missing:
        raise PreconditionError(
            fault("quantize: float layers", "needs a range that was not trained", got=str(missing[0]))
        )
    other.placement = placement
    used = {range_key(site) for site in placement.ranges}
    for key in [key for key in other.quantizers if key not in used]:
        del other.quantizers[key]
    other.set_phase("frozen")
    return other


def float_twin(model: QuantizedModel) -> nn.Module:
    """The network without fake-quant of activations; its weights stay on the integer grid."""
    twin = copy.deepcopy(model)
    twin.set_phase("frozen")
    return twin.model.cpu().eval()


def quantized_layers(model: QuantizedModel) -> list[str]:
    """Names of the convolutions and linear layers whose weights are integers, in module order."""
    return [
        name
        for name, layer in model.model.named_modules()
        if _quantized(layer) and not isinstance(layer, nn.Embedding)
    ]


def _quantized(layer: nn.Module) -> bool:
    chains = getattr(layer, "parametrizations", None)
    return (
        isinstance(chains, nn.ModuleDict)
        and "weight" in chains
        and any(isinstance(each, WeightFakeQuant) for each in chains["weight"])  # type: ignore[attr-defined]
    )
