"""Whole residual blocks go, the least important first; then distillation."""

from __future__ import annotations

import copy
from fnmatch import fnmatchcase

from torch import nn

from edgekd.errors import PreconditionError, RecipeError, fault, nearest
from edgekd.prune.depth import drop_blocks, find_blocks, rank_blocks
from edgekd.recipe_stages import DepthStage
from edgekd.stages.base import StageContext, StageOutcome
from edgekd.stages.cutting import Cutting, history_of, rehearse_objectives, sizes
from edgekd.stages.teaching import require_training


class PruneDepth(Cutting):
    def __init__(self, recipe: DepthStage) -> None:
        super().__init__(recipe)
        self.recipe: DepthStage = recipe

    def requires(self, model: nn.Module, context: StageContext) -> None:
        require_training(self.recipe, model, context)
        blocks, count = self._plan(model, context)
        small = copy.deepcopy(model)
        drop_blocks(small, blocks[:count])
        rehearse_objectives(
            self.recipe, small, model if self.recipe.teacher == "dense" else context.teacher, context
        )

    def apply(self, model: nn.Module, context: StageContext) -> StageOutcome:
        model.cpu().eval()
        before = sizes(model, context)
        dense = copy.deepcopy(model) if self.recipe.teacher == "dense" else None
        blocks, count = self._plan(model, context)
        batches = context.calibration(self.recipe.calibration_samples)
        ranked = rank_blocks(model, blocks, batches, count)
        cut = drop_blocks(model, [name for name, _ in ranked])
        result = self.train(model, self.recipe, context, dense, stage=context.name, folder=context.folder)
        facts = self.outcome_facts(model.cpu(), [cut], before, result, context)
        facts |= {"dropped": dict(ranked), "blocks": len(blocks)}
        return StageOutcome(model, facts, history_of([result]))

    def _plan(self, model: nn.Module, context: StageContext) -> tuple[list[str], int]:
        """The blocks that can go, and how many do."""
        found = find_blocks(model, context.example)
        for glob in self.recipe.exclude:
            if not any(fnmatchcase(name, glob) for name in found):
                raise RecipeError(
                    fault(
                        f"{self.name}.exclude",
                        "matches no residual block",
                        got=glob,
                        fix=nearest(glob, found),
                    )
                )
        blocks = [name for name in found if not any(fnmatchcase(name, glob) for glob in self.recipe.exclude)]
        if not blocks:
            raise PreconditionError(
                fault(
                    self.name,
                    "the model has no residual block that it runs without",
                    fix="use method: channels",
                )
            )
        ratio = self.recipe.ratio
        count = self.recipe.blocks if ratio is None else max(1, round(ratio * len(blocks)))
        assert count is not None
        if count >= len(blocks):
            key = "blocks" if ratio is None else "ratio"
            raise PreconditionError(
                fault(f"{self.name}.{key}", "would leave none of the residual blocks", got=ratio or count,
                      allowed=f"fewer than {len(blocks)}: {', '.join(blocks[:6])}")
            )  # fmt: skip
        return blocks, count
