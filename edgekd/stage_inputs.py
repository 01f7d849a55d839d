"""Who teaches a stage and on what: the run's teacher and data, unless the stage names others.

A recipe in the way of ERNIE-Tiny changes one of them from stage to stage (Weiyue Su et al., "ERNIE-Tiny: A
Progressive Distillation Framework for Pretrained Transformer Compression", 2021, arXiv 2106.02241).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from edgekd.data.open import open_data
from edgekd.data.source import Dataset, Progress
from edgekd.models.loaded import LoadedModel
from edgekd.models.resolve import resolve_model
from edgekd.models.text_preprocessing import require_same_input, shared_input
from edgekd.recipe import Recipe
from edgekd.recipe_stages import DistillStage
from edgekd.students.choose import guide
from edgekd.tasks import TASKS

FEATURES_ONLY = frozenset({"hidden", "embedding", "minilm", "minilm-v2", "squarehead", "attention"})


class StageInputs:
    """Loads what stages name beside the run's own, each once.

    Args:
        teacher, data: the run's own.
        student: the models that stages name must read the same input.
        where: start of error messages.
    """

    def __init__(
        self,
        recipe: Recipe,
        base: Path,
        *,
        teacher: LoadedModel | None,
        student: LoadedModel,
        data: Dataset,
        where: str,
        progress: Progress,
    ) -> None:
        self.recipe, self.base, self.where, self.progress = recipe, base, where, progress
        self.teacher, self.student, self.data = teacher, student, data
        self._guide = guide(teacher, student, f"{where}: teacher")
        self._teachers: dict[tuple[str, bool], nn.Module] = {}
        self._data: dict[str, Dataset] = {}

    def teacher_of(self, stage: Any, name: str) -> nn.Module | None:
        """
        Raises:
            ModelError: no such model, or one that reads another input or knows other classes.
        """
        if not isinstance(stage, DistillStage) or stage.teacher is None:
            return self._guide
        # What teaches by its hidden states alone need not know the task: its head may be a fresh one.
        latent = set(stage.objectives) <= FEATURES_ONLY
        key = (stage.teacher, latent)
        if key not in self._teachers:
            where = f"{self.where}: stages: {name}: teacher"
            shared = self.teacher.preprocess if self.teacher else self.student.preprocess
            model = resolve_model(
                stage.teacher, classes=self.student.classes, input=shared_input(shared), base=self.base, where=where,
                role="student" if latent else "teacher",
            )  # fmt: skip
            if self.teacher is not None:
                require_same_input(self.teacher.preprocess, model.preprocess, where)
            self._teachers[key] = guide(model, self.student, where) or model.module
        return self._teachers[key]

    def data_of(self, stage: Any, name: str) -> Dataset:
        """
        Raises:
            DataError: no such data.
        """
        if not isinstance(stage, DistillStage) or stage.data is None:
            return self.data
        if stage.data not in self._data:
            own = self.recipe.data.model_copy(update={"path": stage.data, "labels": False, "max_test": None})
            text = TASKS[self.recipe.task].text
            self._data[stage.data] = open_data(own, base=self.base, progress=self.progress, text=text)
        return self._data[stage.data]
