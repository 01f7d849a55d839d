"""torch-pruning's dependency graph, asked which channels are coupled.

It takes every operation that it does not know for an elementwise one, so what comes from here is a proposal;
:mod:`edgekd.prune.trial` tries it out.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.models.torchvision_shim import ensure_torchvision_ops
from edgekd.prune.channels import ChannelGroup, Coupling


class Untraceable(Exception):
    """The couplings of this model cannot be found; ``str()`` is the reason."""


def propose_groups(
    model: nn.Module, example: Tensor, readers: Collection[str]
) -> list[tuple[ChannelGroup, str | None]]:
    """torch-pruning's sets that end in one of ``readers``, each with None or the reason why it is unusable.

    Args:
        model: its parameters must require gradients; it is left in evaluation mode.
        example: one input batch.
        readers: the layers whose input order matters.

    Raises:
        Untraceable: torch-pruning fails on this model.
    """
    ensure_torchvision_ops()
    import torch_pruning

    names = {part: name for name, part in model.named_modules()}
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            graph = torch_pruning.DependencyGraph().build_dependency(model, example, verbose=False)
            parsed = [_parse(group, graph, names) for group in graph.get_all_groups()]
    except Exception as error:  # whatever it trips over: permutation is optional, the run goes on without
        what = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"
        raise Untraceable(f"torch-pruning cannot trace this model ({what})") from error
    return [
        (group, reason)
        for group, reason in parsed
        if any(coupling.side == "in" and coupling.layer in readers for coupling in group.couplings)
    ]


def _parse(proposal: Any, graph: Any, names: dict[nn.Module, str]) -> tuple[ChannelGroup, str | None]:
    from torch_pruning.ops import OPTYPE

    weighing = {OPTYPE.CONV, OPTYPE.LINEAR}
    movable = weighing | {OPTYPE.DEPTHWISE_CONV, OPTYPE.BN, OPTYPE.LN, OPTYPE.IN, OPTYPE.PRELU}
    channels = len(proposal[0].idxs)
    couplings: dict[Coupling, None] = {}
    reasons: list[str] = []
    for item in proposal:
        node, layer = item.dep.target, item.dep.target.module
        if node.type == OPTYPE.OUTPUT:
            reasons.append("they are the model's output")
        elif node.type == OPTYPE.PARAMETER:
            reasons.append("they are tied to a parameter outside the known layers")
        elif layer not in names:
            continue  # a function (add, concatenation): what it does to the order shows at its readers
        elif node.type not in movable:
            if any(True for _ in layer.parameters(recurse=False)):
                reasons.append(f"{names[layer]} is a {type(layer).__name__}")
        else:
            if node.type == OPTYPE.CONV and layer.groups > 1:
                reasons.append(f"{names[layer]} is a grouped convolution")
            written = node.type not in weighing or graph.is_out_channel_pruning_fn(item.dep.handler)
            repeat = _repeat(item, channels, channels if written else layer.weight.shape[1])
            if repeat is None:
                reasons.append(f"{names[layer]} holds them among others or in another order")
            couplings[Coupling(names[layer], "out" if written else "in", repeat or 1)] = None
    root = names.get(proposal[0].dep.target.module, "?")
    return ChannelGroup(root, channels, tuple(couplings)), next(iter(reasons), None)


def _repeat(item: Any, channels: int, size: int) -> int | None:
    """1: the item covers all ``size`` places in the root's order; r: so many places a channel; else None."""
    repeat, rest = divmod(size, channels)
    places = sorted(zip(item.idxs, item.root_idxs, strict=True), key=lambda pair: pair[0])
    if rest or places != [(place, place // repeat) for place in range(size)]:
        return None
    return repeat
