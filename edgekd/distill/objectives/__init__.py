"""The table of objectives: what a recipe may name under ``objectives``."""

from __future__ import annotations

from edgekd.distill.objectives.attention_transfer import AttentionTransfer
from edgekd.distill.objectives.base import Objective, ObjectiveKind
from edgekd.distill.objectives.ce import CrossEntropy
from edgekd.distill.objectives.embedding import Embeddings
from edgekd.distill.objectives.hidden import HiddenStates
from edgekd.distill.objectives.kd import KnowledgeDistillation
from edgekd.distill.objectives.minilm import MiniLM
from edgekd.distill.objectives.minilm_v2 import MiniLMv2
from edgekd.distill.objectives.squarehead import SquareHead
from edgekd.errors import RecipeError, fault, nearest
from edgekd.recipe_stages import ObjectiveRecipe, TrainRecipe

_KINDS = (
    ObjectiveKind("ce", CrossEntropy.build, "cross-entropy with the labels (label_smoothing, mixup)"),
    ObjectiveKind(
        "kd",
        KnowledgeDistillation.build,
        "the teacher's soft answers (Hinton 2015); temperature 4 by default",
        ("temperature",),
    ),
    ObjectiveKind(
        "squarehead", SquareHead.build, "the teacher's features, equal widths (Kurtic 2023)", ("layers",)
    ),
    ObjectiveKind(
        "attention",
        AttentionTransfer.build,
        "where the teacher's activations are large, any widths (Zagoruyko 2017)",
        ("layers",),
    ),
    ObjectiveKind(
        "hidden",
        HiddenStates.build,
        "the teacher's hidden states, any widths (TinyBERT 2020); distance mse or cosine",
        ("layers", "distance"),
    ),
    ObjectiveKind(
        "embedding",
        Embeddings.build,
        "what enters the first block, any widths (TinyBERT 2020); distance mse or cosine",
        ("distance",),
        reads="embedding",
    ),
    ObjectiveKind(
        "minilm",
        MiniLM.build,
        "attention and value relations of the last layer, equally many heads (Wang 2020)",
        ("layers",),
        reads="attention",
    ),
    ObjectiveKind(
        "minilm-v2",
        MiniLMv2.build,
        "query, key and value relations of the last layer, any heads and widths (Wang 2021)",
        ("layers", "relation_heads"),
        reads="attention",
    ),
)
OBJECTIVES: dict[str, ObjectiveKind] = {kind.name: kind for kind in _KINDS}


def build_objective(name: str, recipe: ObjectiveRecipe, train: TrainRecipe) -> Objective:
    """
    Raises:
        RecipeError: an unknown name, or a setting that the objective does not read.
    """
    if name not in OBJECTIVES:
        raise RecipeError(
            fault(f"objectives.{name}", "unknown objective", got=name, fix=nearest(name, OBJECTIVES))
        )
    return OBJECTIVES[name](recipe, train)
