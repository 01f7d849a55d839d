"""What was cut out of an architecture, as data: enough to cut the same out of a fresh one and fill its weights.

A pruned network cannot be rebuilt from its name. Each pruning step leaves a :class:`Cut` on the module it
changed; ``model.json`` stores them, and a fresh module goes through the same cuts before its weights arrive.
Neither pickle nor the pruning library is needed for that.

A file may come from anywhere, so a cut can only make a network smaller: sizes shrink, integer attributes that
exist shrink, modules that exist are skipped, split in two thin ones or become another activation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from edgekd.errors import ModelError, fault
from edgekd.models.evaluating import evaluating
from edgekd.models.thin import FACTORS, PassThrough, split_layer

_RECORD = "_edgekd_cuts"
_FOLDED = "_edgekd_folded"
ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hardswish": nn.Hardswish, "silu": nn.SiLU}
Size = int | tuple[int, ...]


class Cut(BaseModel):
    """One pruning step.

    Attributes:
        tensors: parameters and buffers that became smaller, by name, with their new shape.
        attributes: integers (or tuples of them) of a module that follow: ``{"conv1": {"out_channels": 32}}``.
        skipped: modules that now pass their input through.
        ranks: layers that became two thin ones, with the channels between them.
        activations: modules without parameters that became another activation (:data:`ACTIVATIONS`).
        after_fold: the batch norms were folded before this step.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tensors: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    attributes: dict[str, dict[str, Size]] = Field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    ranks: dict[str, int] = Field(default_factory=dict)
    activations: dict[str, Literal["relu", "relu6", "hardswish", "silu"]] = Field(default_factory=dict)
    after_fold: bool = False


def cuts_of(module: nn.Module) -> tuple[Cut, ...]:
    """Every step that ``module`` went through, oldest first."""
    return tuple(getattr(module, _RECORD, ()))


def record_cut(module: nn.Module, cut: Cut) -> Cut:
    """Note on ``module`` (and on its later copies) that ``cut`` was made; the cut as it was noted."""
    cut = cut.model_copy(update={"after_fold": bool(getattr(module, _FOLDED, False))})
    setattr(module, _RECORD, (*cuts_of(module), cut))
    return cut


def mark_folded(module: nn.Module) -> None:
    """Later cuts of ``module`` are of the network without batch norms."""
    setattr(module, _FOLDED, True)


def replay_cuts(module: nn.Module, cuts: Sequence[Cut], *, where: str) -> None:
    """Make ``cuts`` on ``module``, in place. The values left are not the pruned model's: fill them.

    Raises:
        ModelError: a cut names what the module does not have, or would enlarge it.
    """
    for cut in cuts:
        for name in cut.skipped:
            _replace(module, name, PassThrough(), where)
        for name, rank in cut.ranks.items():
            layer = _submodule(module, name, where)
            limit = min(layer.weight.shape[:2]) if isinstance(layer, FACTORS) else 0
            if not (isinstance(layer, FACTORS) and 1 <= rank <= limit):
                raise ModelError(
                    fault(where, f"surgery: {name} cannot have this rank", got=rank, allowed=f"1 to {limit}")
                )
            _replace(module, name, split_layer(layer, rank), where)
        for name, kind in cut.activations.items():
            if next(_submodule(module, name, where).parameters(), None) is not None:
                raise ModelError(fault(where, f"surgery: {name} is no activation", got=kind))
            set_activation(module, name, kind)
        resize(module, cut.tensors, cut.attributes, where=where)
        record_cut(module, cut)
    forget_caches(module)


def resize(
    module: nn.Module,
    tensors: Mapping[str, tuple[int, ...]],
    attributes: Mapping[str, Mapping[str, Size]],
    *,
    where: str,
) -> None:
    """Shrink tensors to new shapes (their first entries stay) and set integers, in place."""
    known: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    known |= dict(module.named_buffers(remove_duplicate=False))
    for name, shape in tensors.items():
        tensor = known.get(name)
        if tensor is None or tensor.dim() != len(shape) or not _shrinks(tuple(tensor.shape), shape):
            raise ModelError(
                fault(where, f"surgery: {name} cannot take this shape", got=list(shape),
                      allowed=None if tensor is None else f"at most {list(tensor.shape)}")
            )  # fmt: skip
        tensor.data = tensor.data[tuple(slice(size) for size in shape)].clone()
    for path, values in attributes.items():
        part = _submodule(module, path, where)
        for key, value in values.items():
            old = vars(part).get(key)
            if key.startswith("_") or not _is_size(old) or not _shrinks(_sizes(old), _sizes(value)):
                raise ModelError(
                    fault(where, f"surgery: {path}.{key} cannot be set", got=value, allowed=f"at most {old}")
                )
            setattr(part, key, value)


def forget_caches(module: nn.Module) -> None:
    """Some attention layers keep computed biases while they are in evaluation mode: let them go."""
    with evaluating(module):
        module.train().eval()


def _is_size(value: Any) -> bool:
    parts = value if isinstance(value, tuple) else (value,)
    return bool(parts) and all(isinstance(part, int) and not isinstance(part, bool) for part in parts)


def _sizes(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def _shrinks(old: tuple[int, ...], new: tuple[int, ...]) -> bool:
    return len(old) == len(new) and all(1 <= b <= a for a, b in zip(old, new, strict=True))


def _submodule(module: nn.Module, name: str, where: str) -> nn.Module:
    found = dict(module.named_modules()).get(name)
    if found is None:
        raise ModelError(fault(where, "surgery names a module that the architecture does not have", got=name))
    return found


@torch.no_grad()
def _replace(module: nn.Module, name: str, part: nn.Module, where: str) -> None:
    old = _submodule(module, name, where)
    if old is module:
        raise ModelError(fault(where, "surgery would replace the whole network", got=name))
    parent, _, child = name.rpartition(".")
    part.train(old.training)
    setattr(module.get_submodule(parent), child, part)


def skip_module(module: nn.Module, name: str) -> None:
    """Let ``name`` pass its input through, in place; not recorded."""
    _replace(module, name, PassThrough(), "depth")


def set_activation(module: nn.Module, name: str, kind: str) -> None:
    """Let ``name`` be the activation ``kind``; not recorded."""
    _replace(module, name, ACTIVATIONS[kind](), "activations")


def split_module(module: nn.Module, name: str, rank: int) -> None:
    """Make two thin layers of ``name``, with the nearest product that has this rank; not recorded."""
    layer = module.get_submodule(name)
    assert isinstance(layer, FACTORS)
    _replace(module, name, split_layer(layer, rank), "low rank")
