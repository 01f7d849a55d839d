"""The demo's student with its teacher and without, the same number of steps, three seeds each.

Both arms: same data, split, augmentation, optimizer, schedule and EMA; the epoch is chosen on the validation
split; the test split is read once, at the end. The arms differ in the objectives alone: the demo's, and hard
cross-entropy.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from accelerate import Accelerator
from conditions import write

from edgekd.data.open import open_data
from edgekd.distill.teacher import Teacher
from edgekd.evaluation import score, torch_logits
from edgekd.models.resolve import resolve_model
from edgekd.recipe_file import load_recipe, shipped_recipes
from edgekd.recipe_stages import DistillStage, ObjectiveRecipe
from edgekd.schedule import derive_seed
from edgekd.stages.base import StageContext
from edgekd.stages.teaching import teacher_for
from edgekd.train import fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=None, help="instead of the demo's")
    options = parser.parse_args()
    recipe, base = load_recipe("demo"), shipped_recipes()["demo"].parent
    stage = recipe.stages[0]
    assert isinstance(stage, DistillStage)
    if options.epochs:
        stage = stage.model_copy(update={"epochs": options.epochs})
    without = stage.model_copy(update={"objectives": {"ce": ObjectiveRecipe()}, "teacher_cache": False})
    data, accelerator = open_data(recipe.data, base=base), Accelerator()
    assert recipe.teacher is not None
    teacher = resolve_model(recipe.teacher, classes=10, input=recipe.input, base=base, where="teacher")
    top1: dict[str, list[float]] = {"with teacher": [], "without teacher": []}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in options.seeds:
            for arm, settings in (("with teacher", stage), ("without teacher", without)):
                torch.manual_seed(derive_seed(seed, "init"))
                student = resolve_model(
                    recipe.student, classes=10, input=recipe.input, base=base, where="student", role="student"
                )
                student.module.requires_grad_(True)
                context = StageContext(
                    name="distill", folder=Path(scratch) / f"{arm}-{seed}",
                    cache_folder=Path(scratch) / f"cache-{seed}", data=data, preprocess=student.preprocess,
                    teacher=teacher.module, classes=10, seed=seed,
                    scheme="u8s8", accelerator=accelerator,
                )  # fmt: skip
                told: Teacher | None = teacher_for(settings, context)
                fit(student.module, settings, context.training(told))
                logits = torch_logits(student.module, data.test, student.preprocess, accelerator.device)
                top1[arm].append(score(logits, data.test, None)["top1"])
                print(f"seed {seed}, {arm}: {100 * top1[arm][-1]:.2f} %", flush=True)
    gains = [100 * (a - b) for a, b in zip(top1["with teacher"], top1["without teacher"], strict=True)]
    write(
        f"kd-gain-fashion-mnist-{stage.epochs}-epochs-{len(options.seeds)}-seeds",
        {
            "test_top1": top1,
            "mean": {arm: statistics.mean(values) for arm, values in top1.items()},
            "stdev": {
                arm: statistics.stdev(values) if len(values) > 1 else None for arm, values in top1.items()
            },
            "gain_points": gains,
            "mean_gain_points": statistics.mean(gains),
            "seeds": options.seeds,
            "epochs": stage.epochs,
        },
    )


if __name__ == "__main__":
    main()
