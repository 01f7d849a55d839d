"""Which network is trained."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from edgekd.errors import ModelError
from edgekd.models.resolve import resolve_model
from edgekd.recipe import InputRecipe, Recipe
from edgekd.students.choose import choose_student


def recipe(student: str, **more: object) -> Recipe:
    stages = [{"stage": "distill", "objectives": {"ce": {}}}]
    return Recipe.model_validate(
        {"name": "trial", "student": student, "data": {"path": "x"}, "stages": stages, "teacher": "t", **more}
    )


@pytest.fixture
def teacher(tmp_path):
    torch.manual_seed(0)
    own = InputRecipe(size=32, channels=1, mean=(0.3,), std=(0.4,), interpolation="bilinear", crop_pct=1)
    return resolve_model("timm:test_resnet@random", classes=10, input=own, base=tmp_path, where="teacher")


def refusal(tmp_path, student, teacher, classes=10, **more):
    with pytest.raises(ModelError) as caught:
        choose_student(recipe(student, **more), teacher, classes=classes, base=tmp_path)
    message = str(caught.value)
    assert message.startswith("trial: student")
    assert "\n" not in message
    return message


def test_same_is_a_copy_that_leaves_the_teacher_alone(teacher, tmp_path):
    teacher.module.requires_grad_(False)
    student = choose_student(recipe("same"), teacher, classes=10, base=tmp_path)
    images = torch.randn(2, 1, 32, 32)
    answer = teacher.module(images)
    assert torch.equal(student.module(images), answer)
    assert student.preprocess == teacher.preprocess
    assert all(parameter.requires_grad for parameter in student.module.parameters())
    assert not any(parameter.requires_grad for parameter in teacher.module.parameters())
    with torch.no_grad():
        student.module.fc.weight.zero_()
    assert torch.equal(teacher.module(images), answer)


def test_another_architecture_takes_the_teachers_input_and_classes(teacher, tmp_path):
    teacher.preprocess = teacher.preprocess.model_copy(update={"crop_mode": "squash"})
    student = choose_student(recipe("timm:test_efficientnet@random"), teacher, classes=0, base=tmp_path)
    assert student.preprocess == teacher.preprocess
    assert student.classes == 10
    assert student.module(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
    assert student.notes == []


def test_a_larger_student_is_noted(tmp_path):
    torch.manual_seed(0)
    small = resolve_model(
        "timm:test_efficientnet@random",
        classes=10,
        input=InputRecipe(size=32),
        base=tmp_path,
        where="teacher",
    )
    student = choose_student(recipe("timm:test_resnet@random"), small, classes=10, base=tmp_path)
    assert [note for note in student.notes if "larger than the teacher" in note and "parameters" in note]


def test_without_a_teacher(tmp_path):
    alone = recipe("timm:test_resnet@random", teacher=None, input={"size": 32})
    student = choose_student(alone, None, classes=4, base=tmp_path)
    assert student.classes == 4
    assert student.preprocess.height == 32


def test_a_student_that_refuses_the_teachers_size(teacher, tmp_path):
    teacher.preprocess = teacher.preprocess.model_copy(update={"height": 40})
    assert "refuses an input of 1x40x32" in refusal(tmp_path, "timm:test_vit@random", teacher)


def test_class_counts_that_differ(teacher, tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef make(): return nn.Sequential(nn.Conv2d(1, 4, 32), nn.Flatten())\n"
    )
    assert "knows 4 classes, the data has 10" in refusal(tmp_path, "torch:net.py:make", teacher)


def test_a_black_box_has_no_copy(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 10, 8), nn.Flatten())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = torch.zeros(2, 3, 8, 8)
        torch.onnx.export(module, (example,), str(tmp_path / "t.onnx"), dynamo=False, input_names=["x"])
    box = resolve_model("onnx:t.onnx", classes=10, input=InputRecipe(), base=tmp_path, where="teacher")
    assert "no weights to train" in refusal(tmp_path, "same", box)
    other = choose_student(recipe("timm:test_resnet@random", input={}), box, classes=10, base=tmp_path)
    assert other.preprocess.input_shape == (3, 8, 8)
