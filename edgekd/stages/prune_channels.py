"""Whole channels and attention heads go, in one or several cuts, with distillation after each."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.artifact import write_json
from edgekd.data.loader import eval_loader
from edgekd.data.source import Split
from edgekd.errors import PreconditionError, fault
from edgekd.export.write import export_float
from edgekd.models.cost import count_macs
from edgekd.profiles import measure
from edgekd.prune.amounts import (
    Counts,
    between,
    counts_for,
    pruned_copy,
    removal_of,
    require_units_left,
    search_counts,
)
from edgekd.prune.coupling import Untraceable
from edgekd.prune.find import find_unit_groups
from edgekd.prune.groups import Skipped
from edgekd.prune.proof import name_reasons
from edgekd.prune.unit_saliency import collect_gradients, unit_scores
from edgekd.prune.units import UnitGroup, remove_units, shrink_groups
from edgekd.recipe_stages import ChannelStage
from edgekd.stages.base import StageContext, StageOutcome
from edgekd.stages.cutting import Cutting, history_of, rehearse_objectives, sizes
from edgekd.stages.teaching import require_training

_NEAR = 0.05  # a target counts as met up to this share above it
_OPSET = 17  # of the files that a latency target is measured on

Scores = dict[str, Tensor]


class PruneChannels(Cutting):
    def __init__(self, recipe: ChannelStage) -> None:
        super().__init__(recipe)
        self.recipe: ChannelStage = recipe
        self._found: tuple[Any, list[UnitGroup], Skipped] | None = None

    def requires(self, model: nn.Module, context: StageContext) -> None:
        recipe = self.recipe
        require_training(recipe, model, context)
        if recipe.latency_ms is not None and context.device != "cpu":
            raise PreconditionError(
                fault(f"{self.name}.latency_ms", "can only be measured on the machine at hand", got=context.device,
                      allowed="device cpu", fix="give ratio or macs")
            )  # fmt: skip
        groups, skipped = self._groups(model, context)
        even = {group.root: torch.ones(group.units, dtype=torch.float64) for group in groups}
        if recipe.ratio is not None:
            require_units_left(groups, recipe.ratio, f"{self.name}.ratio")
            counts = self._at(groups, recipe.ratio, even, context)
        else:
            share = recipe.macs if recipe.macs is not None else 1.0
            counts = self._search_macs(model, groups, skipped, even, context, share)
        small = pruned_copy(model, groups, counts, even)
        dense = model if recipe.teacher == "dense" else context.teacher
        rehearse_objectives(recipe, small, dense, context)

    def apply(self, model: nn.Module, context: StageContext) -> StageOutcome:
        recipe = self.recipe
        model.cpu().eval()
        before = sizes(model, context)
        dense = copy.deepcopy(model) if recipe.teacher == "dense" else None
        groups, skipped = self._groups(model, context)
        widths = {group.root: group.units for group in groups}
        scores = self._scores(model, groups, context)
        final = self._counts(model, groups, skipped, scores, context)
        start, cuts, results = list(groups), [], []
        for step in range(1, recipe.steps + 1):
            if step > 1:
                scores = self._scores(model.cpu(), groups, context)
            counts = between(start, final, step / recipe.steps, self._round_to(context))
            removal = removal_of(groups, counts, scores)
            cuts.append(remove_units(model, groups, removal))
            groups = shrink_groups(groups, removal)
            last = step == recipe.steps
            training = recipe if last else recipe.model_copy(update={"epochs": recipe.step_epochs})
            results.append(
                self.train(
                    model, training, context, dense, stage=context.name if last else f"{context.name}/step-{step}",
                    folder=context.folder if last else context.folder / f"step-{step}",
                )
            )  # fmt: skip
        facts = self.outcome_facts(model.cpu(), cuts, before, results[-1], context)
        facts["kept"] = {root: [final[root], widths[root]] for root in final}
        facts["kinds"] = {group.root: group.kind for group in groups}
        notes = [f"{root} keeps its channels: {reason}" for root, reason in skipped]
        return StageOutcome(model, facts, history_of(results), notes)

    def _groups(self, model: nn.Module, context: StageContext) -> tuple[list[UnitGroup], Skipped]:
        """The sets that can lose units; found once for every structure that the stage sees."""
        shapes = [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
        if self._found is None or self._found[0] != shapes:
            try:
                groups, skipped = find_unit_groups(model, context.example, exclude=self.recipe.exclude)
            except Untraceable as error:
                raise PreconditionError(
                    fault(self.name, str(error), fix="use method: depth or low-rank")
                ) from None
            if not groups:
                raise PreconditionError(
                    fault(self.name, "no channels of this model can go", got=name_reasons(skipped),
                          fix="use method: depth or low-rank")
                )  # fmt: skip
            self._found = (shapes, groups, skipped)
        return self._found[1], self._found[2]

    def _round_to(self, context: StageContext) -> int:
        return self.recipe.round_to or (16 if context.scheme == "s8s8" else 8)

    def _at(self, groups: list[UnitGroup], amount: float, scores: Scores, context: StageContext) -> Counts:
        return counts_for(
            groups, amount, round_to=self._round_to(context), scope=self.recipe.scope, scores=scores
        )

    def _scores(self, model: nn.Module, groups: list[UnitGroup], context: StageContext) -> Scores:
        gradients = None
        if self.recipe.saliency == "taylor":
            indices = context.data.train.indices
            chosen = indices[:: max(1, len(indices) // self.recipe.calibration_samples)]
            split = Split("saliency", context.data.train.source, chosen[: self.recipe.calibration_samples])
            loader = eval_loader(split, context.preprocess, batch_size=64, workers=0)
            gradients = collect_gradients(model, ((batch["inputs"], batch["labels"]) for batch in loader))
        return unit_scores(model, groups, self.recipe.saliency, gradients)

    def _counts(
        self,
        model: nn.Module,
        groups: list[UnitGroup],
        skipped: Skipped,
        scores: Scores,
        context: StageContext,
    ) -> Counts:
        recipe = self.recipe
        if recipe.ratio is not None:
            return self._at(groups, recipe.ratio, scores, context)
        if recipe.macs is not None:
            return self._search_macs(model, groups, skipped, scores, context, recipe.macs)
        return self._search_latency(model, groups, scores, context)

    def _search_macs(
        self, model: nn.Module, groups: list[UnitGroup], skipped: Skipped, scores: Scores, context: StageContext,
        share: float,
    ) -> Counts:  # fmt: skip
        example = context.example[:1]
        dense = count_macs(model, example)

        def cost(counts: Counts) -> float:
            return count_macs(pruned_copy(model, groups, counts, scores), example) / dense

        counts, found = search_counts(lambda amount: self._at(groups, amount, scores, context), cost, share)
        if found > share * (1 + _NEAR):
            stays = name_reasons([pair for pair in skipped if "output" not in pair[1]])
            raise PreconditionError(
                fault(f"{self.name}.macs", f"cannot be met: the least is {found:.2f} of the dense network's",
                      got=share, fix="a smaller round_to, another target"
                      + (f"; these keep their channels: {stays}" if stays else ""))
            )  # fmt: skip
        return counts

    def _search_latency(
        self, model: nn.Module, groups: list[UnitGroup], scores: Scores, context: StageContext
    ) -> Counts:
        """Measured once: a resumed run goes by the counts that were found, not by the clock."""
        target = self.recipe.latency_ms
        assert target is not None
        stored = context.folder / "widths.json"
        if stored.exists():
            kept: Counts = json.loads(stored.read_text(encoding="utf-8"))["kept"]
            return kept
        with tempfile.TemporaryDirectory() as scratch:

            def cost(counts: Counts) -> float:
                file = Path(scratch) / "candidate.onnx"
                export_float(pruned_copy(model, groups, counts, scores), context.example, file, opset=_OPSET)
                return measure({"candidate": file}, threads=1, rounds=3, runs=20).reports["candidate"].p50_ms

            counts, found = search_counts(
                lambda amount: self._at(groups, amount, scores, context),
                cost,
                target,
                tolerance=0.03,
                tries=5,
            )
            slower = found > target * (1 + _NEAR)
        if slower:
            raise PreconditionError(
                fault(f"{self.name}.latency_ms", f"cannot be met: the fastest measured takes {found:.2f} ms",
                      got=target, fix="a smaller input, another student, or method: depth")
            )  # fmt: skip
        write_json(stored, {"kept": counts, "measured_ms": found})
        return counts
