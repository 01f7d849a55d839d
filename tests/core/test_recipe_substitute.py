"""What a recipe may say about exchanged activations, and what it is told where that makes no sense."""

from __future__ import annotations

from typing import Any

import pytest

from edgekd.errors import RecipeError
from edgekd.recipe_file import apply_overrides, load_recipe, parse_recipe
from edgekd.recipe_substitute import pairs

BASE: dict[str, Any] = {"teacher": "timm:resnet18@random", "data": {"path": "builtin:digits"}}
QAT = {**BASE, "stages": [{"distill": {}}, {"quantize": {}}]}


def refused(document: dict[str, Any], *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(apply_overrides(document, overrides), where="r.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_name_stands_for_all_that_it_can_replace() -> None:
    assert pairs("relu") == {"silu": "relu", "gelu": "relu", "hardswish": "relu"}
    assert pairs("hardswish") == {"silu": "hardswish", "gelu": "hardswish"}
    assert pairs({"gelu": "quick-gelu"}) == {"gelu": "quick-gelu"} and pairs({}) == {}


def test_both_trainings_take_it_and_by_themselves_ask_for_nothing() -> None:
    quiet = parse_recipe(QAT, where="r.yaml")
    assert [stage.substitute for stage in quiet.stages] == [{}, {}]
    asked = apply_overrides(QAT, ["distill.substitute=relu", "quantize.substitute.gelu=quick-gelu"])
    stages = parse_recipe(asked, where="r.yaml").stages
    assert [stage.substitute for stage in stages] == ["relu", {"gelu": "quick-gelu"}]


def test_after_training_is_refused_with_what_to_do_instead() -> None:
    ptq = {**BASE, "stages": [{"quantize": {"method": "ptq"}}]}
    told = refused(ptq, "quantize.substitute.gelu=relu")
    assert "stages[0].substitute: belongs to method qat, not to ptq" in told
    assert "training has to make up" in told and "distill.substitute" in told
    parse_recipe({**BASE, "stages": [{"distill": {"substitute": "relu"}}, *ptq["stages"]]}, where="r.yaml")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("distill.substitute=silu", "neither one of relu, relu6, hardswish"),
        ("distill.substitute=[gelu]", "neither one of"),
        ("distill.substitute.gelu=tanh", "gelu cannot become tanh; there are silu: relu"),
        ("distill.substitute.gelu=quick-gelu", "quantize.substitute"),
        ("distill.substitute=quick-gelu", "neither one of"),
    ],
)
def test_what_cannot_be_is_one_line(override: str, words: str) -> None:
    assert words in refused(QAT, override)


def test_the_shipped_recipe_exchanges_before_the_longest_training() -> None:
    recipe = load_recipe("same-fast", ["teacher=timm:resnet18@random", "data.path=builtin:digits"])
    assert [stage.stage for stage in recipe.stages] == ["distill", "prune", "quantize"]
    assert recipe.student == "same" and recipe.stages[0].substitute == "relu"
    epochs = [stage.epochs for stage in recipe.stages]
    assert epochs[0] == max(epochs)
