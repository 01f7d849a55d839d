"""Which channels can only be removed together: torch-pruning's dependency graph, read as plain data.

Gongfan Fang, Xinyin Ma, Mingli Song, Michael Bi Mi, Xinchao Wang, "DepGraph: Towards Any Structural Pruning",
CVPR 2023, arXiv 2301.12900. The graph takes an operation that it does not know for an elementwise one, and its
own pruning step fails on several families, so what comes from here is a proposal for
:mod:`edgekd.prune.proof`, and the cutting is our own.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.models.torchvision_shim import ensure_torchvision_ops
from edgekd.prune.coupling import Untraceable
from edgekd.prune.units import Follower, Role, Slice, UnitGroup

Skipped = list[tuple[str, str]]


def propose_unit_groups(model: nn.Module, example: Tensor) -> tuple[list[UnitGroup], Skipped]:
    """Every set of channels that torch-pruning finds, and (root, reason) of those that are out of the question.

    Args:
        model: its parameters must require gradients; left in evaluation mode.
        example: one input batch.

    Raises:
        Untraceable: torch-pruning fails on this model.
    """
    ensure_torchvision_ops()
    import torch_pruning

    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            graph = torch_pruning.DependencyGraph().build_dependency(model, (example,), verbose=False)
            found = [_read(proposal, graph, model) for proposal in graph.get_all_groups()]
    except Exception as error:  # whatever it trips over is the reason why channels cannot go
        what = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"
        raise Untraceable(f"torch-pruning cannot trace this model ({what})") from error
    groups = [group for group, reason in found if reason is None]
    skipped = [(group.root, reason) for group, reason in found if reason is not None]
    merged, lost = _merge_grouped(model, groups)
    return merged, skipped + lost


def _read(proposal: Any, graph: Any, model: nn.Module) -> tuple[UnitGroup, str | None]:
    from torch_pruning.ops import OPTYPE

    names = {part: name for name, part in model.named_modules()}
    loose = {id(parameter): name for name, parameter in model.named_parameters()}
    pieces: dict[tuple[str, int], Slice] = {}
    reasons: list[str] = []
    layers: list[str] = []

    def add(tensor: str, dim: int, item: Any, role: Role, *attributes: Follower) -> None:
        piece = Slice(tensor, dim, tuple(item.idxs), tuple(item.root_idxs), role, attributes)
        known = pieces.get((tensor, dim))
        if known is not None and known.positions != piece.positions:
            reasons.append(f"{tensor} holds them in two places")
        pieces.setdefault((tensor, dim), piece)

    for item in proposal:
        node, layer = item.dep.target, item.dep.target.module
        if node.type == OPTYPE.OUTPUT:
            reasons.append("they are the model's output")
        elif node.type == OPTYPE.PARAMETER:
            dim = node.pruning_dim % layer.dim()
            known = {follower for piece in pieces.values() for follower in piece.attributes}
            more = [f for f in _followers(model, loose[id(layer)], layer.shape[dim]) if f not in known]
            add(loose[id(layer)], dim, item, "free", *more)
        elif layer in names:
            name = names[layer]
            layers.append(name)
            writes = graph.is_out_channel_pruning_fn(item.dep.handler)
            problem = _layer(node.type, OPTYPE, name, layer, writes, item, add)
            reasons += [problem] if problem else []
    if not any(piece.role == "read" for piece in pieces.values()):
        reasons.append("they are the model's output, or nobody reads them")
    root = names.get(proposal[0].dep.target.module, "?")
    group = UnitGroup(
        root, len(proposal[0].idxs), tuple(pieces.values()), layers=tuple(dict.fromkeys(layers))
    )
    return group, next(iter(reasons), None)


def _followers(model: nn.Module, tensor: str, size: int) -> list[Follower]:
    """Integers of a loose parameter's owner that repeat its size: a stored shape, a stored width."""
    path = tensor.rpartition(".")[0]
    found: list[Follower] = []
    for key, value in vars(model.get_submodule(path)).items():
        if key.startswith("_") or isinstance(value, bool):
            continue
        if isinstance(value, int) and value == size:
            found.append((path, key, None, 1))
        elif isinstance(value, tuple) and all(isinstance(entry, int) for entry in value):
            found += [(path, key, place, 1) for place, entry in enumerate(value) if entry == size]
    return found


def _layer(kind: Any, types: Any, name: str, layer: Any, writes: bool, item: Any, add: Any) -> str | None:
    """Add the slices of one layer; a reason where it cannot follow."""
    if kind == types.DEPTHWISE_CONV:
        steps = [(name, key, None, 1) for key in ("out_channels", "in_channels", "groups")]
        add(f"{name}.weight", 0, item, "free", *steps)
        if layer.bias is not None:
            add(f"{name}.bias", 0, item, "free")
    elif kind in (types.CONV, types.LINEAR):
        if getattr(layer, "transposed", False):
            return f"{name} is a transposed convolution"
        out_key, in_key = (
            ("out_channels", "in_channels") if kind == types.CONV else ("out_features", "in_features")
        )
        if writes:
            add(f"{name}.weight", 0, item, "write", (name, out_key, None, 1))
            if layer.bias is not None:
                add(f"{name}.bias", 0, item, "write")
        else:
            dim = 1 if getattr(layer, "groups", 1) == 1 else -1
            add(f"{name}.weight", dim, item, "read", (name, in_key, None, 1))
    elif kind in (types.BN, types.IN):
        tensors = ["weight", "bias", "running_mean", "running_var"]
        _vectors(name, layer, tensors, item, "free", (name, "num_features", None, 1), add)
    elif kind == types.LN:
        if len(layer.normalized_shape) != 1:
            return f"{name} normalises over more than channels"
        _vectors(name, layer, ["weight", "bias"], item, "norm", (name, "normalized_shape", 0, 1), add)
    elif kind == types.GN:
        _vectors(name, layer, ["weight", "bias"], item, "norm", (name, "num_channels", None, 1), add)
    elif kind == types.PRELU and layer.num_parameters > 1:
        _vectors(name, layer, ["weight"], item, "free", (name, "num_parameters", None, 1), add)
    elif kind == types.EMBED:
        add(f"{name}.weight", 1, item, "write", (name, "embedding_dim", 1))
    elif any(True for _ in layer.parameters(recurse=False)):
        return f"{name} is a {type(layer).__name__}"
    return None


def _vectors(
    name: str, layer: Any, tensors: list[str], item: Any, role: Role, step: Follower, add: Any
) -> None:
    present = [key for key in tensors if getattr(layer, key, None) is not None]
    for position, key in enumerate(present):
        add(f"{name}.{key}", 0, item, role, *([step] if position == 0 else []))
    if not present:
        add(f"{name}.", -1, item, role, step)


def _merge_grouped(model: nn.Module, groups: list[UnitGroup]) -> tuple[list[UnitGroup], Skipped]:
    """A grouped convolution gives up whole groups: its inputs and outputs become one set with fat units."""
    merged = list(groups)
    lost: Skipped = []
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Conv2d) or layer.groups in (1, layer.out_channels):
            continue
        touching = [g for g in merged if any(piece.tensor == f"{name}.weight" for piece in g.slices)]
        if not touching:
            continue
        count = math.gcd(layer.groups, *(group.units for group in touching))
        sides = {
            piece.role for group in touching for piece in group.slices if piece.tensor == f"{name}.weight"
        }
        merged = [group for group in merged if group not in touching]
        if sides == {"read", "write"} and count > 1:
            merged.append(_coarsen(touching, count, name, layer))
        else:
            lost += [(group.root, f"{name} is a grouped convolution") for group in touching]
    return merged, lost


def _coarsen(touching: list[UnitGroup], count: int, name: str, layer: nn.Conv2d) -> UnitGroup:
    pieces = []
    for group in touching:
        per = group.units // count
        for piece in group.slices:
            attributes = piece.attributes
            if piece.tensor == f"{name}.weight" and piece.role == "read":
                attributes = (*attributes, (name, "groups", None, layer.in_channels // layer.groups))
            units = tuple(unit // per for unit in piece.units)
            pieces.append(Slice(piece.tensor, piece.dim, piece.positions, units, piece.role, attributes))
    first = touching[0]
    layers = tuple(dict.fromkeys(layer for group in touching for layer in group.layers))
    width = max(group.units * group.width for group in touching) // count
    return UnitGroup(first.root, count, tuple(pieces), width=width, layers=layers)
