from __future__ import annotations

import pytest
import yaml

from edgekd.errors import RecipeError
from edgekd.recipe_file import apply_overrides, load_recipe, parse_recipe, read_document, shipped_recipes

GOOD = {
    "teacher": "timm:resnet18@random",
    "data": {"path": "builtin:digits"},
    "stages": [{"distill": {"epochs": 3}}, {"prune": None}, {"quantize": {"augment": {"mixup": 0.1}}}],
}


def refused(change: dict, *parts: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe({**GOOD, **change}, where="r.yaml")
    text = str(caught.value)
    assert "\n" not in text and text.startswith("r.yaml")
    for part in parts:
        assert part in text, text


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"tacher": 1}, ["tacher", "did you mean 'teacher'"]),
        ({"stages": [{"distill": {"epoch": 3}}]}, ["stages[0].epoch", "did you mean 'epochs'"]),
        ({"stages": [{"distill": {"augment": {"mixp": 1}}}]}, ["stages[0].augment.mixp", "'mixup'"]),
        ({"stages": [{"distill": {"objectives": {"kd": {"temp": 1}}}}]}, ["temp", "'temperature'"]),
        ({"stages": [{"distil": {}}]}, ["stages[0]", "did you mean 'distill'"]),
        ({"stages": [{"prune": {"pattern": "4:2"}}]}, ["pattern", "'4:2'", "2:4"]),
        ({"stages": [{"distill": {"epochs": -1}}]}, ["epochs", "-1"]),
        ({"stages": [{"quantize": {}}, {"prune": {}}]}, ["quantize must be the last"]),
        ({"stages": [{"prune": {}}, {"distill": {}}]}, ["distill must stand before prune"]),
        ({"teacher": None}, ["'same' needs a teacher"]),
        ({"teacher": None, "student": "timm:resnet18@random"}, ["objective 'kd' needs a teacher"]),
        (
            {"data": {"path": "x", "labels": False}, "stages": [{"distill": {"objectives": {"ce": {}}}}]},
            ["reads labels"],
        ),
        ({"data": {}}, ["data.path", "missing"]),
        ({"data": {"path": "x", "size": 32}}, ["data.size", "did you mean input.size?"]),
        ({"input": {"mean": "0.5,0.5,0.5"}}, ["input.mean", "must be a list"]),
        ({"stages": []}, ["stages"]),
        ({"stages": "distill"}, ["not a list"]),
    ],
)  # fmt: skip
def test_a_wrong_recipe_is_one_line_that_names_the_key(change, parts):
    refused(change, *parts)


def test_the_resolved_recipe_reads_back_as_itself():
    recipe = parse_recipe(GOOD, where="r.yaml")
    again = parse_recipe(yaml.safe_load(recipe.to_yaml()), where="again")
    assert again == recipe and again.hash() == recipe.hash()


def test_the_hash_changes_with_any_setting():
    other = parse_recipe(apply_overrides(GOOD, ["quantize.augment.mixup=0.2"]), where="r.yaml")
    assert other.hash() != parse_recipe(GOOD, where="r.yaml").hash()


def test_overrides_reach_stages_and_top_level_keys_and_leave_the_document_alone():
    changed = apply_overrides(GOOD, ["distill.epochs=5", "prune.pattern='1:4'", "data.workers=0", "seed=7"])
    recipe = parse_recipe(changed, where="r.yaml")
    assert (recipe.stages[0].epochs, recipe.stages[1].pattern, recipe.data.workers, recipe.seed) == (
        5,
        "1:4",
        0,
        7,
    )
    assert GOOD["stages"][0] == {"distill": {"epochs": 3}}


@pytest.mark.parametrize(("written", "meant"), [("2:4", "2:4"), ("'1:4'", "1:4"), ("1:16", "1:16")])
def test_a_pattern_needs_no_quotes(written, meant):
    recipe = parse_recipe(apply_overrides(GOOD, [f"prune.pattern={written}"]), where="r.yaml")
    assert recipe.stages[1].pattern == meant


@pytest.mark.parametrize(
    "override", ["distill.epochs", "=3", "distill..x=1", "data.path.x=1", "distill.epochs=[1"]
)
def test_a_wrong_override_is_one_line(override):
    with pytest.raises(RecipeError) as caught:
        apply_overrides(GOOD, [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mark", ["|", ",", ", ", ";", "#", ":", "&", "*", "%", "-", "- ", "||", ">"])
def test_punctuation_means_itself(mark):
    recipe = parse_recipe(apply_overrides(GOOD, [f"data.label_separator={mark}"]), where="r.yaml")
    assert recipe.data.label_separator == mark


def test_yaml_of_an_override_is_still_yaml():
    changed = apply_overrides({}, ["a=[]", "b={}", "c='|'", "d=~", "e=-1", "f=.5", "g="])
    assert changed == {"a": [], "b": {}, "c": "|", "d": None, "e": -1, "f": 0.5, "g": None}


def test_an_override_of_a_stage_that_the_recipe_lacks_names_those_it_has():
    with pytest.raises(RecipeError, match="distill"):
        apply_overrides({**GOOD, "stages": [{"distill": {}}]}, ["prune.epochs=1"])


def test_yaml_that_runs_code_or_is_broken_is_refused(tmp_path):
    for text in ("!!python/object/apply:os.system ['true']", "a: [1", "- 1", "\x00"):
        path = tmp_path / "r.yaml"
        path.write_text(text)
        with pytest.raises(RecipeError) as caught:
            load_recipe(path)
        assert "\n" not in str(caught.value)


def test_an_unknown_recipe_names_the_nearest_shipped_one():
    with pytest.raises(RecipeError, match="label-free"):
        load_recipe("label-fre")


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_parses_once_teacher_and_data_are_given(name):
    document = read_document(shipped_recipes()[name])
    document.setdefault("data", {}).setdefault("path", "builtin:digits")
    if "teacher" not in document:
        document["teacher"] = "timm:resnet18@random"
    recipe = parse_recipe(document, where=name)
    assert recipe.name == name and recipe.description
