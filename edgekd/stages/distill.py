"""Train the student on what the teacher says (or, with ``ce`` alone, on labels)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from edgekd.errors import PostconditionError, fault
from edgekd.quant.substitute import exchange, require_activations
from edgekd.recipe_stages import DistillStage
from edgekd.stages.base import StageContext, StageOutcome
from edgekd.stages.teaching import require_training, teacher_for
from edgekd.train import fit


class Distill:
    def __init__(self, recipe: DistillStage) -> None:
        self.recipe = recipe
        self.name: str = recipe.stage

    def requires(self, model: nn.Module, context: StageContext) -> None:
        require_activations(model, context.example, self.recipe.substitute, where=context.name)
        require_training(self.recipe, model, context)

    def apply(self, model: nn.Module, context: StageContext) -> StageOutcome:
        exchanged = exchange(model.cpu(), context.example, self.recipe.substitute)
        result = fit(model, self.recipe, context.training(teacher_for(self.recipe, context)))
        facts: dict[str, Any] = {"best_epoch": result.best_epoch, "criterion": result.criterion}
        if self.recipe.substitute:
            facts["substituted"] = exchanged.to_json()
        return StageOutcome(model, facts, [asdict(entry) for entry in result.history], exchanged.sentences())

    def attach(self, model: nn.Module, facts: dict[str, Any], context: StageContext) -> nn.Module:
        exchange(model, context.example, self.recipe.substitute)
        return model

    def ensures(self, model: nn.Module) -> None:
        require_finite(model, self.name)


def require_finite(model: nn.Module, stage: str) -> None:
    """
    Raises:
        PostconditionError: a parameter is NaN or infinite.
    """
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise PostconditionError(fault(stage, f"{name} holds values that are not finite"))
