"""N:M pruning, then fine-tuning under the mask with distillation."""

from __future__ import annotations

import copy
from dataclasses import asdict
from typing import Any

from torch import nn

from edgekd.errors import PostconditionError, PreconditionError, fault
from edgekd.models.reparametrize import reparametrize
from edgekd.prune.apply import attach, check_masks, freeze_masks, masked_layers, prune
from edgekd.prune.eligibility import find_eligible
from edgekd.prune.pattern import Pattern
from edgekd.prune.permute import permute_channels
from edgekd.recipe_stages import PruneStage
from edgekd.stages.base import StageContext, StageOutcome
from edgekd.stages.distill import require_finite
from edgekd.stages.teaching import require_training, teacher_for
from edgekd.train import fit, network


class Prune:
    def __init__(self, recipe: PruneStage) -> None:
        self.recipe = recipe
        self.name: str = recipe.stage

    def requires(self, model: nn.Module, context: StageContext) -> None:
        if self.recipe.permute and self.recipe.teacher != "dense" and "squarehead" in self.recipe.objectives:
            raise PreconditionError(
                fault(f"{self.name}.permute", "squarehead compares channels one by one, and permute moves them",
                      fix="set teacher: dense, which moves with the student, or permute: false")
            )  # fmt: skip
        find_eligible(network(model), Pattern.parse(self.recipe.pattern), exclude=self.recipe.exclude)
        require_training(self.recipe, model, context)

    def apply(self, model: nn.Module, context: StageContext) -> StageOutcome:
        recipe = self.recipe
        model.cpu().eval()
        merged = reparametrize(model, context.example)
        permutation = None
        if recipe.permute:
            permutation = permute_channels(
                model, recipe.pattern, context.example, exclude=recipe.exclude, seed=context.seed
            )
        dense = copy.deepcopy(model) if recipe.teacher == "dense" else None
        calibration = context.calibration(recipe.calibration_samples) if recipe.saliency == "wanda" else None
        report = prune(
            model, recipe.pattern, saliency=recipe.saliency, calibration=calibration, mask=recipe.mask,
            exclude=recipe.exclude, sr_ste_decay=recipe.sr_ste_decay, permutation=permutation,
        )  # fmt: skip
        result = fit(model, recipe, context.training(teacher_for(recipe, context, dense)))
        freeze_masks(model)
        facts = {"prune": asdict(report), "best_epoch": result.best_epoch, "criterion": result.criterion}
        notes = [f"{name} stays dense: {reason}" for name, reason in report.skipped]
        if merged:
            how = "parallel branches merged, computed weights stored, packed attention taken apart"
            notes.insert(0, f"{len(merged)} parts of the network were rewritten as plain layers ({how})")
        return StageOutcome(model, facts, [asdict(entry) for entry in result.history], notes)

    def attach(self, model: nn.Module, facts: dict[str, Any], context: StageContext) -> nn.Module:
        reparametrize(model, context.example)
        attach(model, facts["prune"]["layers"], self.recipe.pattern)
        return model

    def ensures(self, model: nn.Module) -> None:
        require_finite(model, self.name)
        inner = network(model)
        broken = check_masks(inner, self.recipe.pattern)
        if broken or not masked_layers(inner):
            raise PostconditionError(
                fault(self.name, f"{self.recipe.pattern} does not hold", got=broken or "no mask")
            )
