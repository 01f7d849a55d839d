"""Activations exchanged for ones that integers do faster: asked for by the recipe, never done by itself.

ReLU costs nothing in integers (it is the rounding's lower end), HardSwish two operations, SiLU a table and a
product, and GELU has no integer kernel at all. ``quick-gelu`` is ``silu(1.702 x) / 1.702`` (Hendrycks and Gimpel
2016, arXiv 1606.08415), at most 0.021 from GELU; the two factors go into the layers around it, so that a plain
SiLU remains. What another activation costs in accuracy, training with a teacher has to bring back.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import PreconditionError, fault
from edgekd.models.bake import stored_weight
from edgekd.models.calls import Call, CallGraph, record_calls
from edgekd.models.fold import fold_batch_norms
from edgekd.models.surgery import Cut, mark_folded, record_cut, set_activation
from edgekd.quant.call_rules import IDENTITIES, MOVES_VALUES, WEIGHTED
from edgekd.quant.regions import price
from edgekd.recipe_substitute import QUICK_GELU, SUBSTITUTES, pairs

_SLOPE = 1.702


@dataclass
class Substitutions:
    """Attributes:
    exchanged: by module, what it was and what it is: ``"silu -> relu"``.
    kept: by module, why it stays.
    nothing: it was asked for, and the network has none of them.
    saved_us: microseconds an inference by the prices of :mod:`edgekd.quant.regions`: an estimate for one
        AVX512 core.
    """

    exchanged: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    saved_us: float = 0.0
    nothing: bool = False

    def to_json(self) -> dict[str, Any]:
        return {"exchanged": self.exchanged, "kept": self.kept, "estimated_us": round(self.saved_us, 1)}

    def sentences(self) -> list[str]:
        """For the report."""
        if self.nothing:
            return ["no activation was exchanged: the network has none that the recipe names"]
        counts = Counter(self.exchanged.values())
        said = [
            f"{count} {'activation was' if count == 1 else 'activations were'} exchanged as the recipe asks: {what}"
            for what, count in counts.items()
        ]
        if said and self.saved_us > 0:
            said[-1] += f" (estimated: {self.saved_us / 1e3:.2f} ms an inference less, on an AVX512 core)"
        return said + [f"{module} stays: {why}" for module, why in self.kept.items()]


def substitute(
    module: nn.Module, example: Tensor, wanted: str | Mapping[str, str], *, fold: bool = True
) -> Substitutions:
    """:func:`exchange`, and a refusal where ``wanted`` names what the network lacks.

    Raises:
        PreconditionError: the network lacks one of the activations.
    """
    require_activations(module, example, wanted)
    return exchange(module, example, wanted, fold=fold)


def exchange(
    module: nn.Module, example: Tensor, wanted: str | Mapping[str, str], *, fold: bool = False
) -> Substitutions:
    """Exchange activations of ``module`` in place.

    Args:
        example: as for :func:`edgekd.quant.qat.prepare_qat`.
        wanted: activation to activation, such as ``{"silu": "hardswish", "gelu": "quick-gelu"}``, or one name
            in the place of all (:func:`edgekd.recipe_substitute.pairs`).
        fold: fold batch norms first, which ``quick-gelu`` needs.
    """
    found, asked = Substitutions(), pairs(wanted)
    if not asked:
        return found
    if fold:
        fold_batch_norms(module, example)
    graph = record_calls(module, example)
    modules, uses = dict(module.named_modules()), Counter(call.site.module for call in graph.calls)
    exchanged: dict[str, Any] = {}
    for call in graph.calls:
        kind, name = asked.get(call.op), call.site.module
        if kind is None or name in exchanged:
            continue
        if next(modules[name].parameters(), None) is not None or next(modules[name].children(), None):
            found.kept[name] = f"{call.op} is called by a module that does more"
            continue
        if kind == QUICK_GELU:
            around = _layers_around(graph, call, modules) if uses[name] == 1 else None
            if around is None:
                found.kept[name] = (
                    "another operation than a layer stands beside it, which cannot take the factor"
                )
                continue
            _scale(around[0], _SLOPE, bias=True)
            for layer in around[1]:
                _scale(layer, 1 / _SLOPE, bias=False)
            kind = "silu"
        exchanged[name] = kind
        set_activation(module, name, kind)
        found.exchanged[name] = f"{call.op} -> {asked[call.op]}"
        found.saved_us += (price(call.op) - price(kind)) * math.prod(call.shape[1:]) / 1e3
    found.nothing = not (found.exchanged or found.kept)
    if fold:
        mark_folded(module)
    if exchanged:
        record_cut(module, Cut(activations=exchanged))
    return found


def require_activations(
    module: nn.Module,
    example: Tensor,
    wanted: str | Mapping[str, str],
    *,
    where: str = "quantize",
) -> None:
    """One name for all fits every network, also one that has nothing to exchange.

    Raises:
        PreconditionError: the network lacks one of the activations.
    """
    if not wanted or isinstance(wanted, str):
        return
    used = {call.op for call in record_calls(module, example).calls}
    for kind in wanted:
        if kind not in used:
            has = ", ".join(sorted(used & SUBSTITUTES.keys())) or "none that can be exchanged"
            raise PreconditionError(
                fault(f"{where}.substitute", "the model has no such activation", got=kind, allowed=has)
            )


def _layers_around(
    graph: CallGraph, call: Call, modules: Mapping[str, nn.Module]
) -> tuple[nn.Module, list[nn.Module]] | None:
    """The layer that alone makes what ``call`` reads, and the layers that alone read what it makes."""
    calls = Counter(other.site.module for other in graph.calls if other.op in WEIGHTED)

    def layer(other: Call | None) -> nn.Module | None:
        if other is None or other.op not in WEIGHTED or calls[other.site.module] != 1:
            return None
        name = other.site.module
        return modules[name] if f"{name}.weight" in other.parameters else None

    before = graph.producer(call.inputs[0])
    while before is not None and before.op in IDENTITIES and graph.sole_consumer(before) is not None:
        before = graph.producer(before.inputs[0])
    first = layer(before)
    if first is None or before is None or graph.sole_consumer(before) is None:
        return None
    readers, todo = [], [call]
    while todo:
        value = todo.pop()
        if set(value.outputs) & set(graph.result):
            return None
        for reader in (other for output in value.outputs for other in graph.consumers(output)):
            if reader.op in IDENTITIES or reader.op in MOVES_VALUES:
                todo.append(reader)
            elif (found := layer(reader)) is not None and reader.inputs[0] in value.outputs:
                readers.append(found)
            else:
                return None
    return first, readers


@torch.no_grad()
def _scale(layer: nn.Module, factor: float, *, bias: bool) -> None:
    stored = stored_weight(layer)
    weight = layer.weight if stored is None else stored
    assert isinstance(weight, Tensor)
    weight.mul_(factor)
    if bias and isinstance(layer.bias, Tensor):
        layer.bias.mul_(factor)
