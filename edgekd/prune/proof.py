"""Proposals are tried out before they are believed.

On a copy in float64 in which no weight is zero by chance, half of the units of a set are removed. Where nobody
normalises over the channels the answers must be those of the dense network whose readers ignore the same units;
where a layer norm does, moving the units about must change nothing, and the smaller network must still answer.
Reshapes with hard-coded sizes, split tables and misread couplings fail one of these, and their set stays whole.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from edgekd.prune.trial import make_visible
from edgekd.prune.units import UnitGroup, permute_units, remove_units, zero_readers

# Relative to the largest answer, in float64: rounding is about 1e-15, a wrong cut 1e-3 and more.
_TOLERANCE = 1e-9


class Proof:
    """A float64 copy of a model to try sets of units on.

    Args:
        module: not changed.
        example: one input batch.

    Raises:
        Untraceable: it does not run in float64, or does not answer with one finite tensor.
    """

    def __init__(self, module: nn.Module, example: Tensor) -> None:
        self.model = copy.deepcopy(module).eval().requires_grad_(False)
        self.example = make_visible(self.model, example[:1])
        self.expected = self._answers(self.model)

    def accepted(self, groups: Sequence[UnitGroup]) -> tuple[list[UnitGroup], list[tuple[str, str]]]:
        """The sets that can lose units, and (root, reason) of the others.

        All are tried at once, and in halves where that fails: most families pass at once.
        """
        plain = [group for group in groups if not group.normalised]
        normalised = [group for group in groups if group.normalised]
        good, bad = self._sort(plain, self._unlike_zeroed)
        more, worse = self._sort(normalised, self._depends_on_order)
        good, bad = good + more, bad + worse
        if good and self._breaks(good) is not None:
            good, worse = self._together(good)
            bad += worse
        return [group for group in groups if group in good], bad

    def _sort(
        self, groups: list[UnitGroup], wrong: Callable[[Sequence[UnitGroup]], str | None]
    ) -> tuple[list[UnitGroup], list[tuple[str, str]]]:
        """Good and bad ones, by halving the sets until the bad ones stand alone."""
        if not groups or (reason := wrong(groups)) is None:
            return groups, []
        if len(groups) == 1:
            return [], [(groups[0].root, reason)]
        middle = len(groups) // 2
        halves = [self._sort(half, wrong) for half in (groups[:middle], groups[middle:])]
        return halves[0][0] + halves[1][0], halves[0][1] + halves[1][1]

    def _together(self, groups: list[UnitGroup]) -> tuple[list[UnitGroup], list[tuple[str, str]]]:
        """Sets that work alone and not with those before them are left out."""
        kept: list[UnitGroup] = []
        bad: list[tuple[str, str]] = []
        for group in groups:
            why = self._breaks([*kept, group])
            if why is None:
                kept.append(group)
            else:
                bad.append((group.root, f"together with the others: {why}"))
        return kept, bad

    def _unlike_zeroed(self, groups: Sequence[UnitGroup]) -> str | None:
        removal = {group.root: _half(group) for group in groups}
        answers, reason = self._cut(groups, removal)
        if answers is None:
            return reason
        zeroed = copy.deepcopy(self.model)
        zero_readers(zeroed, groups, removal)
        expected = self._answers(zeroed)
        if _close(expected, self.expected):
            return "nobody reads them, so it cannot be tried out"
        return None if _close(answers, expected) else "removing them changes more than what they carried"

    def _depends_on_order(self, groups: Sequence[UnitGroup]) -> str | None:
        answers, reason = self._cut(groups, {group.root: _half(group) for group in groups})
        if answers is None:
            return reason
        moved = copy.deepcopy(self.model)
        for group in groups:
            order = torch.randperm(group.units, generator=torch.Generator().manual_seed(group.units))
            if not permute_units(moved, group, order, roles=("write", "read", "norm", "free")):
                return "its units are of different sizes"
        if not _close(self._answers(moved), self.expected):
            return "moving them changes the answers"
        for group in groups:
            permute_units(self.model, group, torch.arange(group.units).roll(1), roles=("read",))
            hidden = _close(self._answers(self.model), self.expected)
            permute_units(self.model, group, torch.arange(group.units).roll(-1), roles=("read",))
            if hidden:
                return "the answers do not depend on their order, so it cannot be tried out"
        return None

    def _breaks(self, groups: Sequence[UnitGroup]) -> str | None:
        return self._cut(groups, {group.root: _half(group) for group in groups})[1]

    def _cut(
        self, groups: Sequence[UnitGroup], removal: dict[str, list[int]]
    ) -> tuple[Tensor | None, str | None]:
        small = copy.deepcopy(self.model)
        return attempt(
            lambda: (remove_units(small, groups, removal), self._answers(small))[1], self.expected.shape
        )

    @torch.no_grad()
    def _answers(self, model: nn.Module) -> Tensor:
        answers = model(self.example)
        assert isinstance(answers, Tensor)
        return answers


def attempt(run: Callable[[], Tensor], shape: torch.Size) -> tuple[Tensor | None, str | None]:
    """The answers of ``run``, or the reason why there are none of this shape."""
    try:
        answers = run()
    except Exception as error:  # whatever the user's forward() raises is the reason
        line = (str(error).splitlines() or [""])[0][:100]
        return None, f"the smaller network fails ({type(error).__name__}: {line})"
    if answers.shape != shape:
        return None, f"the smaller network answers {tuple(answers.shape)} instead of {tuple(shape)}"
    if not torch.isfinite(answers).all():
        return None, "the smaller network's answers are not finite"
    return answers, None


def _half(group: UnitGroup) -> list[int]:
    """Every other unit, not the same half for all sets."""
    generator = torch.Generator().manual_seed(group.units)
    return sorted(torch.randperm(group.units, generator=generator)[: group.units // 2].tolist())


def _close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= _TOLERANCE * other.abs().max().clamp_min(1e-30))


def name_reasons(skipped: Iterable[tuple[str, str]], limit: int = 4) -> str:
    """The first few as one line."""
    parts = [f"{root} ({reason})" for root, reason in skipped]
    more = f" and {len(parts) - limit} more" if len(parts) > limit else ""
    return ", ".join(parts[:limit]) + more
