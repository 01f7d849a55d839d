"""Parametrized weights to plain ones, on a copy, without touching the original."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


@torch.no_grad()
def bake_parametrizations(module: nn.Module) -> None:
    """Every parametrized tensor becomes a plain parameter with the value that the layer sees.

    torch's ``remove_parametrizations`` deletes the property from the layer's generated class, which a deep
    copy shares: baking the copy would take ``weight`` away from the original. Here the layer gets its own
    class back instead.
    """
    for layer in list(module.modules()):
        if not parametrize.is_parametrized(layer):
            continue
        chains = layer.parametrizations
        assert isinstance(chains, nn.ModuleDict)
        values = {name: getattr(layer, name).detach().clone() for name in chains}
        stored = {name: getattr(chain, "original", None) for name, chain in chains.items()}
        layer.__class__ = parametrize.type_before_parametrizations(layer)
        del layer.parametrizations
        for name, value in values.items():
            parameter = stored[name]
            if isinstance(parameter, nn.Parameter) and parameter.shape == value.shape:
                parameter.data = value  # the same object, so an optimizer built earlier keeps working
            else:
                parameter = nn.Parameter(value)
            layer.register_parameter(name, parameter)


def stored_weight(layer: nn.Module) -> Tensor | None:
    """The tensor under ``layer``'s parametrizations of ``weight``; None where there are none."""
    if not parametrize.is_parametrized(layer, "weight"):
        return None
    chains = layer.parametrizations
    assert isinstance(chains, nn.ModuleDict)
    return getattr(chains["weight"], "original", None)
