"""What the stages that leave a smaller network share: the cut as data, the training after it, the promise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekd.distill.features import FeatureCapture
from edgekd.distill.loss import DistillationLoss
from edgekd.distill.objectives.base import Outputs
from edgekd.errors import PostconditionError, PreconditionError, fault
from edgekd.models.cost import measure_cost
from edgekd.models.surgery import Cut, cuts_of, replay_cuts
from edgekd.recipe_stages import CutStage
from edgekd.stages.base import StageContext
from edgekd.stages.distill import require_finite
from edgekd.stages.teaching import teacher_for
from edgekd.train import FitResult, fit, network


class Cutting:
    """Base of the stages whose cuts are stored in ``facts["cuts"]``."""

    def __init__(self, recipe: CutStage) -> None:
        self.recipe = recipe
        self.name: str = recipe.stage

    def attach(self, model: nn.Module, facts: dict[str, Any], context: StageContext) -> nn.Module:
        replay_cuts(model, [Cut.model_validate(cut) for cut in facts["cuts"]], where=context.name)
        return model

    def ensures(self, model: nn.Module) -> None:
        require_finite(model, self.name)
        inner = network(model)
        parts = dict(inner.named_modules())
        for cut in cuts_of(inner):
            for name, shape in cut.tensors.items():
                path, _, key = name.rpartition(".")
                tensor = getattr(parts.get(path), key, None)
                if isinstance(tensor, torch.Tensor) and any(
                    now > then for now, then in zip(tensor.shape, shape, strict=False)
                ):
                    raise PostconditionError(
                        fault(self.name, f"{name} has grown", got=tuple(tensor.shape), allowed=str(shape))
                    )

    def train(
        self,
        model: nn.Module,
        recipe: CutStage,
        context: StageContext,
        dense: nn.Module | None,
        *,
        stage: str,
        folder: Path,
    ) -> FitResult:
        """The recipe's training, with the run's teacher or the network as it was before the cut."""
        teacher = teacher_for(recipe, context, dense)
        return fit(model, recipe, context.training(teacher, stage=stage, folder=folder))

    def outcome_facts(
        self,
        model: nn.Module,
        cuts: Sequence[Cut],
        before: tuple[int, int],
        result: FitResult,
        context: StageContext,
    ) -> dict[str, Any]:
        after = sizes(model, context)
        return {
            "method": getattr(self.recipe, "method", None),
            "cuts": [cut.model_dump(mode="json", exclude_defaults=True) for cut in cuts],
            "macs_before": before[0], "macs_after": after[0],
            "params_before": before[1], "params_after": after[1],
            "best_epoch": result.best_epoch, "criterion": result.criterion,
        }  # fmt: skip


def sizes(model: nn.Module, context: StageContext) -> tuple[int, int]:
    """Multiply-accumulates of one sample, and parameters."""
    cost = measure_cost(model, context.example[:1])
    return cost.macs, cost.params


def history_of(results: Sequence[FitResult]) -> list[dict[str, Any]]:
    """The epochs of several trainings as one history, numbered through."""
    entries = [asdict(entry) for result in results for entry in result.history]
    return [{**entry, "epoch": number} for number, entry in enumerate(entries)]


def rehearse_objectives(
    recipe: CutStage, student: nn.Module, teacher: nn.Module | None, context: StageContext
) -> None:
    """One batch of zeros through the objectives: what cannot compare the two widths says so now.

    Raises:
        PreconditionError: an objective that needs features of equal shapes.
        RecipeError: layers that do not exist.
    """
    loss = DistillationLoss(recipe.objectives, recipe)
    if teacher is None or not loss.needs.features:
        return
    example = context.example
    student.eval()
    teacher = teacher.cpu()
    loss.bind(student, teacher, example)
    with (
        torch.no_grad(),
        FeatureCapture(student, [ours for ours, _ in loss.pairs]) as mine,
        FeatureCapture(teacher, [theirs for _, theirs in loss.pairs]) as its,
    ):
        outputs = Outputs(
            student_logits=student(example), teacher_logits=teacher(example),
            labels=torch.zeros(len(example), dtype=torch.long),
            student_features=mine.take(), teacher_features=its.take(),
        )  # fmt: skip
    try:
        loss(outputs)
    except PreconditionError as error:
        raise PreconditionError(f"{context.name}: after the cut: {error}") from None


__all__ = ["Cutting", "history_of", "rehearse_objectives", "sizes"]
