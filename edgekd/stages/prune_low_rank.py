"""Wide layers become two thin ones; then distillation."""

from __future__ import annotations

import copy

from torch import nn

from edgekd.errors import PreconditionError, fault
from edgekd.prune.low_rank import HEAD, plan_ranks, split_layers
from edgekd.prune.proof import name_reasons
from edgekd.recipe_stages import LowRankStage
from edgekd.stages.base import StageContext, StageOutcome
from edgekd.stages.cutting import Cutting, history_of, rehearse_objectives, sizes
from edgekd.stages.teaching import require_training


class PruneLowRank(Cutting):
    def __init__(self, recipe: LowRankStage) -> None:
        super().__init__(recipe)
        self.recipe: LowRankStage = recipe

    def requires(self, model: nn.Module, context: StageContext) -> None:
        require_training(self.recipe, model, context)
        ranks, skipped = plan_ranks(
            model, context.example, self.recipe.compression, exclude=self.recipe.exclude
        )
        if not ranks:
            fix = name_reasons(skipped) or "the model has no linear and no 1x1 layer"
            if all(reason == HEAD for _, reason in skipped):  # a lower compression would not help
                fix += "; use method: channels"
            raise PreconditionError(
                fault(f"{self.name}.compression", "leaves no layer that becomes thinner", got=self.recipe.compression,
                      fix=fix)
            )  # fmt: skip
        small = copy.deepcopy(model)
        split_layers(small, ranks)
        dense = model if self.recipe.teacher == "dense" else context.teacher
        rehearse_objectives(self.recipe, small, dense, context)

    def apply(self, model: nn.Module, context: StageContext) -> StageOutcome:
        model.cpu().eval()
        before = sizes(model, context)
        dense = copy.deepcopy(model) if self.recipe.teacher == "dense" else None
        ranks, skipped = plan_ranks(
            model, context.example, self.recipe.compression, exclude=self.recipe.exclude
        )
        cut = split_layers(model, ranks)
        result = self.train(model, self.recipe, context, dense, stage=context.name, folder=context.folder)
        facts = self.outcome_facts(model.cpu(), [cut], before, result, context)
        notes = [f"{name} stays whole: {reason}" for name, reason in skipped]
        return StageOutcome(model, facts, history_of([result]), notes)
