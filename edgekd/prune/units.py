"""A set of channels (or attention heads) that can only be removed together, and how to remove some of them.

Everything that is indexed by the units of a set is a :class:`Slice`: one dimension of one tensor, with the unit
that each of its positions belongs to. Positions are those of the dense network, so that sets which meet in one
tensor (a concatenation) can be cut in one go.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from edgekd.models.surgery import Cut, Size, forget_caches, record_cut

Role = Literal["write", "read", "norm", "free"]
Follower = tuple[str, str, int | None, int]


@dataclass(frozen=True)
class Slice:
    """One dimension of one tensor, or of none where only integers follow (a grouped convolution's input).

    Attributes:
        tensor: name in the module.
        dim: of the tensor; -1 where nothing is cut.
        positions, units: equally long; position ``positions[i]`` belongs to unit ``units[i]``.
        role: a layer writes the channels, reads them, normalises over them, or a loose parameter goes with them.
        attributes: (module, attribute, entry of a tuple or None, positions that one step of the integer
            stands for; negative: steps that one position stands for).
    """

    tensor: str
    dim: int
    positions: tuple[int, ...]
    units: tuple[int, ...]
    role: Role
    attributes: tuple[Follower, ...] = ()

    def taken(self, removed: set[int]) -> list[int]:
        return [p for p, unit in zip(self.positions, self.units, strict=True) if unit in removed]


@dataclass(frozen=True)
class UnitGroup:
    """``root`` writes the channels first; ``kind`` says what a unit is; ``width`` channels make one unit."""

    root: str
    units: int
    slices: tuple[Slice, ...]
    kind: Literal["channels", "heads"] = "channels"
    width: int = 1
    layers: tuple[str, ...] = field(default=())

    @property
    def normalised(self) -> bool:
        """A norm runs over the channels, so that removing one changes what the others become."""
        return any(piece.role == "norm" for piece in self.slices)


Removal = Mapping[str, Iterable[int]]
"""Root of a group to the units that go."""


@torch.no_grad()
def remove_units(module: nn.Module, groups: Iterable[UnitGroup], removal: Removal) -> Cut:
    """Take units out of ``module``, in place, and note the cut on it.

    Args:
        module: as dense as when ``groups`` were found.
        groups: all of them, or those that ``removal`` names.
        removal: the units that go, by the group's root.

    Raises:
        RuntimeError: a set would lose all its units.
    """
    tensors = _tensors(module)
    gone: dict[tuple[str, int], set[int]] = {}
    less: dict[tuple[str, str, int | None], int] = {}
    for group in groups:
        removed = set(removal.get(group.root, ()))
        if not removed:
            continue
        if len(removed) >= group.units:
            raise RuntimeError(f"{group.root} would lose all its {group.kind}")
        for piece in group.slices:
            taken = set(piece.taken(removed))
            if piece.dim >= 0:
                gone.setdefault((piece.tensor, piece.dim), set()).update(taken)
            for path, key, entry, step in piece.attributes:
                less[path, key, entry] = less.get((path, key, entry), 0) + (
                    len(taken) // step if step > 0 else -step * len(taken)
                )
    for (name, dim), places in gone.items():
        tensor = tensors[name]
        keep = [place for place in range(tensor.shape[dim]) if place not in places]
        tensor.data = tensor.data.index_select(dim, torch.tensor(keep, device=tensor.device)).contiguous()
        tensor.grad = None
    parts = dict(module.named_modules())
    attributes: dict[str, dict[str, Size]] = {}
    for (path, key, entry), amount in less.items():
        old = getattr(parts[path], key)
        new: Size = old - amount if entry is None else (*old[:entry], old[entry] - amount, *old[entry + 1 :])
        setattr(parts[path], key, new)
        attributes.setdefault(path, {})[key] = new
    forget_caches(module)
    shapes = {name: tuple(tensors[name].shape) for name, _ in gone}
    return record_cut(module, Cut(tensors=shapes, attributes=attributes))


@torch.no_grad()
def zero_readers(module: nn.Module, groups: Iterable[UnitGroup], removal: Removal) -> None:
    """Let nobody read the units: what removing them must amount to where no norm runs over them."""
    tensors = _tensors(module)
    for group in groups:
        removed = set(removal.get(group.root, ()))
        for piece in group.slices:
            if piece.role == "read" and piece.dim >= 0:
                taken = torch.tensor(piece.taken(removed), dtype=torch.long)
                tensors[piece.tensor].index_fill_(piece.dim, taken, 0)


@torch.no_grad()
def permute_units(module: nn.Module, group: UnitGroup, order: Tensor, *, roles: Iterable[Role]) -> bool:
    """Move unit ``order[u]`` to place ``u`` in the slices of these roles; False where units differ in size."""
    tensors = _tensors(module)
    moves = []
    for piece in group.slices:
        if piece.role not in roles or piece.dim < 0:
            continue
        places: list[list[int]] = [[] for _ in range(group.units)]
        for position, unit in zip(piece.positions, piece.units, strict=True):
            places[unit].append(position)
        if len({len(place) for place in places}) != 1:
            return False
        moves.append((piece, places))
    for piece, places in moves:
        tensor = tensors[piece.tensor]
        target = [p for place in places for p in place]
        source = [p for unit in order.tolist() for p in places[unit]]
        index = torch.arange(tensor.shape[piece.dim])
        index[target] = torch.tensor(source)
        tensor.copy_(tensor.index_select(piece.dim, index))
    return True


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_parameters()) | dict(module.named_buffers())


def shrink_groups(groups: Iterable[UnitGroup], removal: Removal) -> list[UnitGroup]:
    """The same sets after :func:`remove_units`: places and units are numbered anew."""
    groups = list(groups)
    gone: dict[tuple[str, int], set[int]] = {}
    for group in groups:
        removed = set(removal.get(group.root, ()))
        for piece in group.slices:
            gone.setdefault((piece.tensor, piece.dim), set()).update(piece.taken(removed))
    return [_shrunk(group, set(removal.get(group.root, ())), gone) for group in groups]


def _shrunk(group: UnitGroup, removed: set[int], gone: Mapping[tuple[str, int], set[int]]) -> UnitGroup:
    left = [unit for unit in range(group.units) if unit not in removed]
    number = {unit: place for place, unit in enumerate(left)}
    pieces = []
    for piece in group.slices:
        lost = sorted(gone[piece.tensor, piece.dim])
        pairs = [
            (position - bisect_left(lost, position), number[unit])
            for position, unit in zip(piece.positions, piece.units, strict=True)
            if unit in number
        ]
        positions, units = tuple(p for p, _ in pairs), tuple(u for _, u in pairs)
        pieces.append(replace(piece, positions=positions, units=units))
    return replace(group, units=len(left), slices=tuple(pieces))
