"""Which channels and attention heads of a model can be removed, and why the others cannot."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgekd.errors import PreconditionError, RecipeError, fault, nearest
from edgekd.prune.groups import Skipped, propose_unit_groups
from edgekd.prune.heads import propose_heads
from edgekd.prune.proof import Proof
from edgekd.prune.units import UnitGroup


def find_unit_groups(
    module: nn.Module, example: Tensor, *, exclude: Iterable[str] = ()
) -> tuple[list[UnitGroup], Skipped]:
    """The sets of channels and heads of ``module`` that can lose units.

    Args:
        module: not changed.
        example: one input batch.
        exclude: shell patterns (fnmatch) of layers that keep their channels.

    Returns:
        The sets, and (root layer, reason) of those that stay whole. The model's outputs are never among them.

    Raises:
        Untraceable: torch-pruning fails on this model.
        PreconditionError: weights are masked or quantized already.
        RecipeError: a pattern in ``exclude`` matches no layer.
    """
    if any(parametrize.is_parametrized(part) for part in module.modules()):
        raise PreconditionError(
            fault("prune", "weights are masked or quantized already", fix="remove channels before that")
        )
    exclude = list(exclude)
    names = [name for name, part in module.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    for glob in exclude:
        if not any(_matches(name, glob) for name in names):
            raise RecipeError(fault("prune.exclude", "matches no layer", got=glob, fix=nearest(glob, names)))
    trial = copy.deepcopy(module).eval().requires_grad_(True)
    groups, skipped = propose_unit_groups(trial, example[:1])
    variants = propose_heads(trial.requires_grad_(False), example[:1])
    owned = {
        piece.tensor.rpartition(".")[0]
        for options in variants
        for piece in options[0].slices
        if piece.role == "write"
    }
    groups = [group for group in groups if group.root not in owned]
    skipped = [(root, why) for root, why in skipped if root not in owned]
    proof = Proof(module, example)
    for group in list(groups):
        named = [glob for glob in exclude if any(_matches(name, glob) for name in group.layers)]
        if named:
            groups.remove(group)
            skipped.append((group.root, f"excluded by the recipe: {named[0]}"))
    variants = [
        options for options in variants
        if not any(_matches(name, glob) for glob in exclude for name in options[0].layers)
    ]  # fmt: skip
    heads, more = _first_that_works(proof, variants)
    skipped += more
    good, bad = proof.accepted([*groups, *heads])
    return good, skipped + bad


def _first_that_works(proof: Proof, variants: list[list[UnitGroup]]) -> tuple[list[UnitGroup], Skipped]:
    """One option of each attention layer, and why the others have none. Layers share their layout mostly, so
    the likeliest options of all of them are tried together.
    """
    reasons: dict[str, str] = {}
    found: dict[int, UnitGroup] = {}
    for turn in range(max(map(len, variants), default=0)):
        tried = {
            k: options[turn] for k, options in enumerate(variants) if k not in found and turn < len(options)
        }
        good, bad = proof.accepted(list(tried.values()))
        found |= {k: option for k, option in tried.items() if option in good}
        reasons = dict(bad) | reasons
    rest = [options[0].root for k, options in enumerate(variants) if k not in found]
    return [found[k] for k in sorted(found)], [(root, reasons[root]) for root in rest]


def _matches(name: str, glob: str) -> bool:
    return fnmatchcase(name, glob) or fnmatchcase(name, f"{glob}.*")
