"""Two thin layers instead of a wide one, where that is fewer numbers.

Yangyang Guo, Guangzhi Wang, Mohan Kankanhalli, "PELA: Learning Parameter-Efficient Models with Low-Rank
Approximation", CVPR 2024, arXiv 2310.10700: rank ``r = d_in d_out / (c (d_in + d_out))`` for a compression
``c``, and training with feature distillation from the full model (the recipe's objectives; ``squarehead`` is the
one that matches every channel). The paper factorises linear layers; 1x1 convolutions are treated alike.
Its weight perturbation term is left out: the recipe's objectives are the whole loss.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from edgekd.errors import RecipeError, fault, nearest
from edgekd.models.calls import CallGraph, record_calls
from edgekd.models.surgery import Cut, record_cut, split_module
from edgekd.models.thin import FACTORS
from edgekd.prune.groups import Skipped
from edgekd.prune.proof import attempt

HEAD = "it answers for the model"  # why a layer stays whole at any compression
_SMALLEST_OUTPUT = 10  # narrower layers are heads, as in the paper


def plan_ranks(
    module: nn.Module, example: Tensor, compression: float, *, exclude: Iterable[str] = ()
) -> tuple[dict[str, int], Skipped]:
    """The rank of every layer that becomes thinner, and (layer, reason) of the linear and 1x1 ones that do not.

    Args:
        module: not changed.
        example: one input batch.
        compression: how many times fewer numbers a layer holds afterwards; more than 1.
        exclude: shell patterns (fnmatch) of layers that stay whole.

    Raises:
        RecipeError: a pattern in ``exclude`` matches no layer.
    """
    layers = {name: part for name, part in module.named_modules() if isinstance(part, FACTORS)}
    exclude = list(exclude)
    for glob in exclude:
        if not any(_matches(name, glob) for name in layers):
            raise RecipeError(fault("prune.exclude", "matches no layer", got=glob, fix=nearest(glob, layers)))
    heads = _last_layers(record_calls(module, example))
    ranks: dict[str, int] = {}
    skipped: Skipped = []
    for name, layer in layers.items():
        if isinstance(layer, nn.Conv2d) and (layer.kernel_size != (1, 1) or layer.groups > 1):
            continue
        rank, reason = _rank(layer, compression)
        if name in heads:
            reason = HEAD
        named = [glob for glob in exclude if _matches(name, glob)]
        reason = f"excluded by the recipe: {named[0]}" if named else reason
        if reason is None:
            ranks[name] = rank
        else:
            skipped.append((name, reason))
    bad = _unusable(module, example, list(ranks))
    return {name: rank for name, rank in ranks.items() if name not in bad}, skipped + list(bad.items())


def split_layers(module: nn.Module, ranks: dict[str, int]) -> Cut:
    """Make the thin layers, in place, with the nearest product of each rank, and note the cut."""
    for name, rank in ranks.items():
        split_module(module, name, rank)
    return record_cut(module, Cut(ranks=ranks))


def _rank(layer: nn.Linear | nn.Conv2d, compression: float) -> tuple[int, str | None]:
    outputs, inputs = layer.weight.shape[:2]
    rank = int(inputs * outputs / (compression * (inputs + outputs)))
    if type(layer).forward not in (nn.Linear.forward, nn.Conv2d.forward):
        return 0, f"a {type(layer).__name__} computes in its own way"
    if isinstance(layer, nn.Conv2d) and (layer.padding_mode != "zeros" or isinstance(layer.padding, str)):
        return 0, "its padding is not zeros"
    if outputs < _SMALLEST_OUTPUT:
        return 0, f"{outputs} outputs"
    if rank < 1:
        return 0, f"{inputs} inputs and {outputs} outputs leave no rank"
    return rank, None


def _last_layers(graph: CallGraph) -> set[str]:
    """The layers whose outputs reach the model's answer with no other layer between."""
    found: set[str] = set()
    stack = list(graph.result)
    while stack:
        call = graph.producer(stack.pop())
        if call is None:
            continue
        if call.op in ("linear", "conv2d"):
            found.add(call.site.module)
        else:
            stack += call.inputs
    return found


@torch.no_grad()
def _unusable(module: nn.Module, example: Tensor, names: list[str]) -> dict[str, str]:
    """Layers whose owner asks them for more than to be called (it reads ``weight`` itself)."""
    trial = copy.deepcopy(module).eval()
    shape = trial(example).shape

    def fails(some: list[str]) -> str | None:
        small = copy.deepcopy(trial)
        for name in some:
            split_module(small, name, 1)
        return attempt(lambda: small(example), shape)[1]

    def sort(some: list[str]) -> dict[str, str]:
        reason = fails(some) if some else None
        if reason is None:
            return {}
        if len(some) == 1:
            return {some[0]: reason}
        middle = len(some) // 2
        return sort(some[:middle]) | sort(some[middle:])

    return sort(names)


def _matches(name: str, glob: str) -> bool:
    return fnmatchcase(name, glob) or fnmatchcase(name, f"{glob}.*")
