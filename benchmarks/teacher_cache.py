"""The teacher's share of an epoch: first epoch, which fills the cache, against the second, which reads it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from accelerate import Accelerator
from conditions import write

from edgekd.data.open import open_data
from edgekd.models.resolve import resolve_model
from edgekd.recipe import DataRecipe
from edgekd.recipe_file import load_recipe, shipped_recipes
from edgekd.recipe_stages import AugmentRecipe, ObjectiveRecipe, TrainRecipe
from edgekd.stages.base import StageContext
from edgekd.stages.teaching import teacher_for
from edgekd.train import fit


def main() -> None:
    demo, base = load_recipe("demo"), shipped_recipes()["demo"].parent
    data = open_data(DataRecipe(path="builtin:fashion-mnist", max_train=12_800, max_test=1000), base=base)
    assert demo.teacher is not None
    teacher = resolve_model(demo.teacher, classes=10, input=demo.input, base=base, where="teacher")
    result = {}
    for name, cached in (("cache", True), ("no cache", False)):
        student = resolve_model(
            demo.student, classes=10, input=demo.input, base=base, where="student", role="student"
        )
        student.module.requires_grad_(True)
        recipe = TrainRecipe(epochs=2, batch_size=128, augment=AugmentRecipe(crop_padding=2), teacher_cache=cached,
                             objectives={"kd": ObjectiveRecipe(temperature=3)})  # fmt: skip
        with tempfile.TemporaryDirectory() as scratch:
            context = StageContext(
                name="distill", folder=Path(scratch), cache_folder=Path(scratch) / "cache", data=data,
                preprocess=student.preprocess, teacher=teacher.module, classes=10, seed=0, scheme="u8s8",
                accelerator=Accelerator(cpu=True),
            )  # fmt: skip
            found = fit(student.module, recipe, context.training(teacher_for(recipe, context)))
        result[name] = [{"teacher_seconds": e.teacher_seconds, "seconds": e.seconds} for e in found.history]
    first, second = result["cache"]
    share = [e["teacher_seconds"] / e["seconds"] for e in (first, second)]
    write(
        "teacher-cache-fashion-mnist-12800",
        {**result, "teacher_share_with_cache": share,
         "teacher_time_saved": 1 - second["teacher_seconds"] / first["teacher_seconds"],
         "teacher_share_saved": 1 - share[1] / share[0]},
    )  # fmt: skip


if __name__ == "__main__":
    main()
