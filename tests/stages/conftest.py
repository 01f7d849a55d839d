"""What a stage is given: a run's context on digits, and a student that is the teacher."""

from __future__ import annotations

import pytest
from accelerate import Accelerator

from edgekd.data.open import open_data
from edgekd.models.resolve import resolve_model
from edgekd.recipe import DataRecipe, InputRecipe
from edgekd.stages.base import StageContext


@pytest.fixture
def context(nets, digits_teacher, tmp_path):
    data = open_data(DataRecipe(path="builtin:digits", max_train=256), base=nets)
    teacher = resolve_model(digits_teacher, classes=10, input=InputRecipe(), base=nets, where="t")
    return StageContext(
        name="stage", folder=tmp_path / "stage", cache_folder=tmp_path / "cache", data=data,
        preprocess=teacher.preprocess, teacher=teacher.module, classes=10, seed=0, scheme="u8s8",
        accelerator=Accelerator(cpu=True), workers=0,
    )  # fmt: skip


@pytest.fixture
def student(nets, digits_teacher):
    loaded = resolve_model(
        digits_teacher, classes=10, input=InputRecipe(), base=nets, where="s", role="student"
    )
    return loaded.module.requires_grad_(True)
