from __future__ import annotations

import pytest
import torch

from edgekd.distill.features import FeatureCapture
from edgekd.distill.loss import DistillationLoss
from edgekd.distill.objectives.base import Needs, Outputs
from edgekd.errors import PreconditionError, RecipeError
from edgekd.recipe_stages import ObjectiveRecipe, TrainRecipe


def loss_of(train: TrainRecipe | None = None, **objectives) -> DistillationLoss:
    recipes = {name: ObjectiveRecipe(**settings) for name, settings in objectives.items()}
    return DistillationLoss(recipes, train or TrainRecipe())


def test_weighted_sum_and_unweighted_detached_parts():
    torch.manual_seed(0)
    student = torch.randn(4, 5, requires_grad=True)
    outputs = Outputs(student_logits=student, teacher_logits=torch.randn(4, 5), labels=torch.arange(4))
    total, parts = loss_of(kd={"weight": 0.9, "temperature": 2}, ce={"weight": 0.1})(outputs)
    assert list(parts) == ["kd", "ce"]
    assert total.item() == pytest.approx(0.9 * parts["kd"].item() + 0.1 * parts["ce"].item(), rel=1e-6)
    assert not any(part.requires_grad for part in parts.values())
    total.backward()
    assert student.grad.abs().sum() > 0


def test_needs_are_the_union_and_layers_those_of_feature_objectives():
    loss = loss_of(ce={}, squarehead={}, attention={"layers": [("a", "b")]})
    assert loss.needs == Needs(labels=True, features=True)
    assert loss.layers == {"squarehead": "auto", "attention": [("a", "b")]}
    assert loss_of(kd={}).needs == Needs(teacher_logits=True)


def test_each_feature_objective_sees_its_own_layers(nets, image):
    student, teacher = nets["staged"](), nets["staged"]()
    loss = loss_of(
        squarehead={"layers": [("stage3", "stage3")]},
        attention={"layers": [("stage1", "stage2"), ("stage3", "stage3")]},
    )
    pairs = loss.bind(student, teacher, image)
    assert pairs == [("stage3", "stage3"), ("stage1", "stage2")]
    with (
        FeatureCapture(student, [ours for ours, _ in pairs]) as ours,
        FeatureCapture(teacher, [theirs for _, theirs in pairs]) as theirs,
    ):
        logits = student(image)
        with torch.no_grad():
            teacher(image)
        outputs = Outputs(student_logits=logits, student_features=ours.take(), teacher_features=theirs.take())
    total, parts = loss(outputs)
    alone = loss_of(squarehead={})
    value, _ = alone(
        Outputs(
            logits,
            student_features=outputs.student_features[:1],
            teacher_features=outputs.teacher_features[:1],
        )
    )
    assert parts["squarehead"].item() == pytest.approx(value.item())
    assert parts["attention"] > 0
    total.backward()
    assert student.stage1[0].conv.weight.grad.abs().sum() > 0
    with pytest.raises(PreconditionError, match="do not fit the layer pairs; got '1 and 1'; allowed: 2"):
        loss(
            Outputs(
                logits,
                student_features=outputs.student_features[:1],
                teacher_features=outputs.teacher_features[:1],
            )
        )


def test_bind_without_feature_objectives_runs_nothing(nets):
    assert loss_of(kd={}).bind(nets["staged"](), nets["staged"](), None) == []


def test_unequal_widths_are_refused_with_the_layers_names(nets, image):
    student, teacher = nets["staged"](width=4), nets["staged"](width=8)
    loss = loss_of(squarehead={})
    pairs = loss.bind(student, teacher, image)
    with (
        FeatureCapture(student, [a for a, _ in pairs]) as ours,
        FeatureCapture(teacher, [b for _, b in pairs]) as theirs,
    ):
        outputs = Outputs(
            student(image), teacher(image), student_features=ours.take(), teacher_features=theirs.take()
        )
    with pytest.raises(
        PreconditionError,
        match=r"student 'stage3', teacher 'stage3'; got '\(2, 16, 2, 2\) and \(2, 32, 2, 2\)'",
    ):
        loss(outputs)
    assert loss_of(attention={})(outputs)[0] > 0


def test_a_cache_cannot_serve_features():
    with pytest.raises(RecipeError) as caught:
        loss_of(TrainRecipe(teacher_cache=True), kd={}, squarehead={})
    assert str(caught.value).startswith("teacher_cache: true with objective squarehead, which reads features")
    loss_of(TrainRecipe(teacher_cache=True), kd={}, ce={})
