"""Embeddings: what enters the student's first layer is what enters the teacher's.

Xiaoqi Jiao et al., "TinyBERT", Findings of EMNLP 2020, arXiv 1909.10351, eq. 9. It differs from ``hidden`` only
in which modules are compared: the last one before the first block.
"""

from __future__ import annotations

from typing import ClassVar

from edgekd.distill.objectives.hidden import HiddenStates
from edgekd.recipe_stages import ObjectiveRecipe, TrainRecipe


class Embeddings(HiddenStates):
    name: ClassVar[str] = "embedding"

    @classmethod
    def build(cls, recipe: ObjectiveRecipe, train: TrainRecipe) -> Embeddings:
        return cls(recipe.distance or "mse")
