"""Smaller students that keep their teacher's weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgekd.errors import ModelError
from edgekd.models.directory import save_model_dir
from edgekd.models.resolve import resolve_model
from edgekd.recipe import InputRecipe, Recipe
from edgekd.students.choose import choose_student
from edgekd.students.derive import Smaller, find_stack, leading, parse_smaller, spread


def load(folder):
    return resolve_model(f"hf:{folder}", classes=3, input=InputRecipe(max_length=16), base=Path(), where="x",
                         role="student")  # fmt: skip


def choose(student, teacher):
    stages = [{"stage": "distill", "objectives": {"ce": {}}}]
    recipe = Recipe.model_validate(
        {"name": "trial", "student": student, "teacher": "t", "data": {"path": "x"}, "stages": stages}
    )
    return choose_student(recipe, teacher, classes=3, base=Path())


@pytest.mark.parametrize(
    ("kind", "stack"), [("bert", "encoder.encoder.layer"), ("distilbert", "encoder.transformer.layer")]
)
def test_layers_are_kept_with_their_weights(text_folder, kind, stack):
    teacher = load(text_folder(kind))
    assert find_stack(teacher.module) == (stack, 4)
    student = choose("same?layers=2", teacher)
    ids = torch.from_numpy(teacher.preprocess(["the oil price rose", "grain"]))
    blocks = teacher.module.get_submodule(stack)
    expected = torch.nn.ModuleList([blocks[1], blocks[3]])
    teacher.module.get_submodule(stack.rpartition(".")[0]).layer = expected
    with torch.no_grad():
        assert torch.allclose(student.module(ids), teacher.module(ids), atol=1e-6)
    assert "layers 1, 3 of 4" in student.notes[-1]
    assert all(parameter.requires_grad for parameter in student.module.parameters())


def test_named_layers_and_first_channels(text_folder):
    teacher = load(text_folder())
    student = choose("same?layers=0,2&width=16&mlp=24", teacher)
    whole, small = teacher.module.state_dict(), student.module.state_dict()
    theirs = whole["encoder.encoder.layer.2.attention.self.query.weight"]
    assert torch.equal(small["encoder.encoder.layer.1.attention.self.query.weight"], theirs[:16, :16])
    assert small["encoder.encoder.layer.1.intermediate.dense.weight"].shape == (24, 16)
    assert torch.equal(small["head.linear.weight"], whole["head.linear.weight"][:, :16])
    assert student.module.encoder.config.num_attention_heads == 2  # heads keep their size
    assert student.classes == 3


def test_a_derived_student_is_rebuilt_from_its_folder(text_folder, tmp_path):
    student = choose("same?layers=3&width=24", load(text_folder()))
    save_model_dir(tmp_path / "s", student.module, spec=student.architecture, classes=["a", "b", "c"],
                   preprocess=student.preprocess, folded=False)  # fmt: skip
    again = resolve_model(str(tmp_path / "s"), classes=3, input=InputRecipe(), base=Path(), where="x")
    ids = torch.from_numpy(student.preprocess(["the oil price rose", "grain"]))
    assert torch.equal(again.module(ids), student.module(ids))
    deeper = choose("same?layers=1", again)
    assert find_stack(again.module)[1] == 3
    assert torch.isfinite(deeper.module(ids)).all()


def test_student_from_a_folder_of_its_own(text_folder):
    folder = text_folder()
    student = choose(f"hf:{folder}?layers=1", load(folder))
    assert len(student.module.encoder.encoder.layer) == 1


def test_spread_ends_with_the_last_layer():
    assert spread(3, 6) == (1, 3, 5) and spread(4, 6) == (1, 2, 3, 5)
    assert spread(6, 6) == tuple(range(6)) and spread(1, 12) == (11,)


def test_the_first_of_query_key_and_value_in_one_matrix():
    whole = torch.arange(6 * 2.0).reshape(6, 2)
    assert leading(whole, torch.Size((3, 1))).flatten().tolist() == [0, 4, 8]


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ("same?layers=9", "layers: not layers of the model; got 9; allowed: 1 to 4"),
        ("same?layers=3,1", "layers: not layers of the model; got (3, 1)"),
        ("same?layers=0", "layers: not usable; got '0'"),
        ("same?layer=2", "unknown setting of a student; got 'layer'"),
        ("same?width=20", "width: not a number of whole heads; got 20; allowed: multiples of 8 up to 32"),
        ("same?mlp=640", "mlp: more channels than the model has; got 640; allowed: up to 64"),
        ("same?vocabulary=all", "vocabulary: not usable; got 'all'"),
    ],
)
def test_what_cannot_be_had_is_one_line(text_folder, student, message):
    with pytest.raises(ModelError) as caught:
        choose(student, load(text_folder()))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_images_have_no_such_settings(tmp_path):
    own = InputRecipe(size=32, channels=1, mean=(0.3,), std=(0.4,), interpolation="bilinear", crop_pct=1)
    teacher = resolve_model("timm:test_resnet@random", classes=3, input=own, base=tmp_path, where="x")
    with pytest.raises(
        ModelError, match="settings of text models; got 'timm:test_resnet@random'; for others use"
    ):
        choose("same?layers=2", teacher)


def test_parsing_leaves_other_students_alone():
    assert parse_smaller("same", "x") == ("same", Smaller())
    assert parse_smaller("hf:a?mlp=8&layers=1,", "x") == ("hf:a", Smaller(layers=(1,), mlp=8))
