"""Stages with a teacher and data of their own, in the way of ERNIE-Tiny."""

from __future__ import annotations

import csv
import json
import random
import shutil
from pathlib import Path

import pytest

from edgekd.errors import ModelError, RecipeError
from edgekd.models.directory import save_model_dir
from edgekd.models.resolve import resolve_model
from edgekd.pipeline import compress
from edgekd.recipe import InputRecipe
from edgekd.recipe_file import load_recipe, parse_recipe

WORDS = {"crude": "oil price tanker gulf", "grain": "wheat corn stocks exports"}
LATENT = {"hidden": {}, "minilm-v2": {}, "embedding": {}}
TRAIN = {"epochs": 1, "batch_size": 16, "lr": 0.001}


def write_texts(path, count):
    draw = random.Random(0)
    with path.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["text", "label"])
        for number in range(count):
            label = list(WORDS)[number % 2]
            rows.writerow([" ".join(draw.choices(WORDS[label].split(), k=5)), label])


@pytest.fixture(scope="module")
def place(text_folder, tmp_path_factory):
    """A folder with task data, general data, a pretrained encoder and a teacher."""
    folder = tmp_path_factory.mktemp("stages")
    write_texts(folder / "task.csv", 80)
    write_texts(folder / "general.csv", 120)
    encoder = text_folder(num_hidden_layers=2)
    shutil.copytree(encoder, folder / "encoder")
    teacher = resolve_model(f"hf:{encoder}", classes=2, input=InputRecipe(max_length=16), base=Path(), where="x",
                            role="student")  # fmt: skip
    for name, parameter in teacher.module.named_parameters():
        if "embeddings.LayerNorm" in name:
            parameter.data.mul_(3)
    save_model_dir(folder / "teacher", teacher.module, spec=teacher.architecture, classes=["crude", "grain"],
                   preprocess=teacher.preprocess, folded=False)  # fmt: skip
    return folder


def recipe(*stages, **more):
    document = {
        "name": "trial", "task": "text-classification", "teacher": "teacher", "student": "hf:encoder?layers=1",
        "data": {"path": "task.csv"}, "stages": [{"distill": {**TRAIN, **stage}} for stage in stages],
        "profile": {"rounds": 1, "runs": 5, "warmup": 1}, **more,
    }  # fmt: skip
    return parse_recipe(document, where="trial")


def test_four_stages_change_one_thing_at_a_time(place, tmp_path):
    general = {"data": "general.csv", "keep_best": False, "objectives": LATENT}
    run = recipe(
        {**general, "teacher": "hf:encoder"}, general, {"objectives": LATENT, "keep_best": False},
        {"objectives": {**LATENT, "kd": {}, "ce": {}}},
    )  # fmt: skip
    report = compress(run, tmp_path / "out", base=place)
    assert [stage.name for stage in report.stages] == ["teacher", "student", "distill", "distill-2", "distill-3",
                                                       "distill-4"]  # fmt: skip
    history = [
        json.loads((tmp_path / "out" / "stages" / folder / "metrics.json").read_text())["history"][0]
        for folder in ("02-distill", "03-distill-2", "04-distill-3", "05-distill-4")
    ]
    assert [set(epoch["parts"]) for epoch in history] == [set(LATENT)] * 3 + [{*LATENT, "kd", "ce"}]
    # The student begins with the encoder's embeddings; those of the run's teacher are three times as large.
    assert history[0]["parts"]["embedding"] < 0.3 * history[1]["parts"]["embedding"]
    saved = resolve_model(str(tmp_path / "out/stages/05-distill-4"), classes=2, input=InputRecipe(), base=Path(),
                          where="x")  # fmt: skip
    assert saved.class_names == ("crude", "grain")
    assert len(saved.module.encoder.encoder.layer) == 1


def test_a_stage_teacher_that_must_answer_needs_a_head(place, tmp_path):
    run = recipe({"teacher": "hf:encoder", "objectives": {"kd": {}}})
    with pytest.raises(
        ModelError, match="trial: stages: distill: teacher: encoder has no classification head"
    ):
        compress(run, tmp_path / "out", base=place)


def test_labels_of_other_data_are_not_read():
    with pytest.raises(RecipeError, match="data is read without labels, but objective 'ce' reads them"):
        recipe({"data": "general.csv", "objectives": {"ce": {}}})


def test_a_stage_with_its_own_teacher_needs_no_other():
    assert recipe({"teacher": "hf:encoder", "objectives": LATENT}, teacher=None).teacher is None
    with pytest.raises(RecipeError, match="objective 'hidden' needs a teacher"):
        recipe({"objectives": LATENT}, teacher=None)


@pytest.mark.parametrize("name", ["text-teacher", "text-r8", "ernie-tiny"])
def test_shipped_text_recipes_parse(name):
    more = [] if name == "text-teacher" else ["teacher=somewhere"]
    assert load_recipe(name, more).task == "text-classification"
