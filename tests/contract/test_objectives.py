"""What every objective must satisfy, whatever it computes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from edgekd.distill import objectives
from edgekd.distill.objectives import OBJECTIVES, build_objective
from edgekd.distill.objectives.base import Needs, Outputs
from edgekd.errors import PreconditionError, RecipeError
from edgekd.recipe_stages import ObjectiveRecipe, TrainRecipe

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = sorted(OBJECTIVES)
TAUGHT = sorted(set(NAMES) - {"ce"})


def build(name: str, **train):
    return OBJECTIVES[name](ObjectiveRecipe(), TrainRecipe(**train))


def batch(dtype=torch.float32, scale: float = 1.0, seed: int = 0, name: str = "kd") -> Outputs:
    """Maps, or for an objective that reads attention, query, key and value with four heads."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: (torch.randn(*shape, generator=generator) * scale).to(dtype)
    outputs = Outputs(
        student_logits=draw(6, 5),
        teacher_logits=draw(6, 5),
        labels=torch.tensor([0, 1, 2, 3, 4, 1]),
        student_features=[draw(6, 3, 4, 4), draw(6, 8, 2, 2)],
        teacher_features=[draw(6, 3, 4, 4), draw(6, 8, 2, 2)],
    )
    if OBJECTIVES[name].reads == "attention":
        outputs.student_features = [draw(6, 7, 24) for _ in range(3)]
        outputs.teacher_features = [draw(6, 7, 24) for _ in range(3)]
        outputs.heads = (4, 4)
        outputs.tokens = torch.arange(7) < torch.tensor([7, 3, 5, 1, 6, 7])[:, None]
    for each in (outputs.student_logits, outputs.teacher_logits, *outputs.student_features):
        each.requires_grad_()
    for each in outputs.teacher_features:
        each.requires_grad_()
    return outputs


def student_tensors(outputs: Outputs) -> list[torch.Tensor]:
    return [outputs.student_logits, *outputs.student_features]


def teacher_tensors(outputs: Outputs) -> list[torch.Tensor]:
    return [outputs.teacher_logits, *outputs.teacher_features]


def test_table_equals_the_files_on_disk():
    folder = Path(objectives.__file__).parent
    on_disk = {file.stem for file in folder.glob("*.py")} - {"__init__", "base"}
    in_table = [kind.builder.__self__.__module__.rpartition(".")[2] for kind in OBJECTIVES.values()]
    assert sorted(in_table) == sorted(on_disk)
    assert all(name == kind.name and "\n" not in kind.summary for name, kind in OBJECTIVES.items())


@pytest.mark.parametrize("name", NAMES)
def test_finite_float32_scalar(name):
    value = build(name)(batch(name=name))
    assert value.shape == () and value.dtype == torch.float32
    assert torch.isfinite(value) and value > 0


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_the_student_and_never_the_teacher(name):
    outputs = batch(name=name)
    build(name)(outputs).backward()
    reached = [each.grad is not None and bool(each.grad.abs().sum() > 0) for each in student_tensors(outputs)]
    assert any(reached)
    assert all(each.grad is None for each in teacher_tensors(outputs))


@pytest.mark.parametrize("name", NAMES)
def test_reads_what_it_says_it_needs(name):
    objective = build(name)
    lacking = batch(name=name)
    if objective.needs.labels:
        lacking.labels = None
    elif objective.needs.features:
        lacking.student_features = lacking.teacher_features = []
    else:
        lacking.teacher_logits = None
    with pytest.raises(PreconditionError, match=f"objectives.{name}: needs"):
        objective(lacking)
    enough = batch(name=name)
    if not objective.needs.labels:
        enough.labels = None
    if not objective.needs.teacher_logits:
        enough.teacher_logits = None
    if not objective.needs.features:
        enough.student_features = enough.teacher_features = []
    assert torch.isfinite(objective(enough))


@pytest.mark.parametrize("name", TAUGHT)
def test_nothing_to_learn_from_a_teacher_who_agrees(name):
    outputs = batch(name=name)
    outputs.teacher_logits = outputs.student_logits.detach().clone()
    outputs.teacher_features = [each.detach().clone() for each in outputs.student_features]
    value = build(name)(outputs)
    assert abs(value.item()) < 1e-6
    value.backward()
    for each in student_tensors(outputs):
        assert each.grad is None or each.grad.abs().max() < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_invariant_to_the_order_of_the_batch(name):
    outputs, order = batch(name=name), torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = Outputs(
        student_logits=outputs.student_logits[order],
        teacher_logits=outputs.teacher_logits[order],
        labels=outputs.labels[order],
        student_features=[each[order] for each in outputs.student_features],
        teacher_features=[each[order] for each in outputs.teacher_features],
        tokens=None if outputs.tokens is None else outputs.tokens[order],
        heads=outputs.heads,
    )
    objective = build(name)
    assert objective(shuffled).item() == pytest.approx(objective(outputs).item(), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_mean_over_the_batch(name):
    once = batch(name=name)
    twice = Outputs(
        student_logits=torch.cat([once.student_logits] * 2),
        teacher_logits=torch.cat([once.teacher_logits] * 2),
        labels=torch.cat([once.labels] * 2),
        student_features=[torch.cat([each] * 2) for each in once.student_features],
        teacher_features=[torch.cat([each] * 2) for each in once.teacher_features],
        tokens=None if once.tokens is None else torch.cat([once.tokens] * 2),
        heads=once.heads,
    )
    objective = build(name)
    assert objective(twice).item() == pytest.approx(objective(once).item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_computes_in_float32(name, dtype):
    """400 squared overflows float16."""
    outputs = batch(dtype, scale=400.0, name=name)
    value = build(name)(outputs)
    wide = batch(dtype, scale=400.0, name=name)
    for field in ("student_logits", "teacher_logits"):
        setattr(wide, field, getattr(wide, field).detach().float())
    for field in ("student_features", "teacher_features"):
        setattr(wide, field, [each.detach().float() for each in getattr(wide, field)])
    assert value.item() == pytest.approx(build(name)(wide).item(), rel=1e-6)
    value.backward()
    for each in student_tensors(outputs):
        assert each.grad is None or torch.isfinite(each.grad).all()


def golden_cases():
    data = json.loads((GOLDEN / "objectives.json").read_text())
    return [pytest.param(data, case, id="-".join(map(str, case.values()))[:24]) for case in data["cases"]]


@pytest.mark.parametrize(("data", "case"), golden_cases())
def test_golden_value(data, case):
    tensor = lambda value: torch.tensor(value, dtype=torch.float32)
    outputs = Outputs(
        student_logits=tensor(data["student_logits"]),
        teacher_logits=tensor(data["teacher_logits"]),
        labels=torch.tensor(data["labels"]),
        student_features=[tensor(each) for each in data["student_features"]],
        teacher_features=[tensor(each) for each in data["teacher_features"]],
    )
    if "tokens" in case:
        outputs.student_features = [tensor(each) for each in data["student_tokens"]]
        outputs.teacher_features = [tensor(each) for each in data[case["tokens"]]]
        outputs.tokens = torch.arange(5) < torch.tensor(data["lengths"])[:, None]
        outputs.heads = (case.get("heads", 1),) * 2
    recipe = ObjectiveRecipe(
        temperature=case.get("temperature"),
        distance=case.get("distance"),
        relation_heads=case.get("relation_heads"),
    )
    train = TrainRecipe(label_smoothing=case.get("label_smoothing", 0.0))
    value = build_objective(case["objective"], recipe, train)(outputs)
    assert value.item() == pytest.approx(case["value"], rel=1e-5)


def test_every_objective_has_a_golden_value_and_the_script_still_makes_them():
    stored = json.loads((GOLDEN / "objectives.json").read_text())
    assert {case["objective"] for case in stored["cases"]} == set(NAMES)
    spec = importlib.util.spec_from_file_location("make_objectives", GOLDEN / "make_objectives.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    made = json.loads(json.dumps(script.golden()))
    for ours, theirs in zip(made["cases"], stored["cases"], strict=True):
        assert ours["value"] == pytest.approx(theirs["value"], rel=1e-12)
    assert made["student_features"] == stored["student_features"]


@pytest.mark.parametrize(
    ("name", "recipe", "message"),
    [
        ("ce", {"temperature": 2.0}, "ce.temperature: ce does not read it; got 2.0; allowed: weight"),
        ("squarehead", {"temperature": 2.0}, "objectives.squarehead.temperature: "),
        ("kd", {"layers": [("a", "b")]}, "objectives.kd.layers: kd does not read it"),
        ("ce", {"layers": [("a", "b")]}, "objectives.ce.layers: ce does not read it"),
        ("kdd", {}, "objectives.kdd: unknown objective; got 'kdd'; did you mean 'kd'?"),
        ("attentions", {}, "did you mean 'attention'?"),
        ("zzz", {}, "known: attention, ce, embedding, hidden, kd, minilm, minilm-v2, squarehead"),
        ("kd", {"distance": "mse"}, "objectives.kd.distance: kd does not read it"),
        ("minilm", {"relation_heads": 4}, "objectives.minilm.relation_heads: minilm does not read it"),
    ],
)  # fmt: skip
def test_wrong_recipe_is_one_line(name, recipe, message):
    with pytest.raises(RecipeError) as caught:
        build_objective(name, ObjectiveRecipe(**recipe), TrainRecipe())
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_resolved_recipe_that_spells_the_defaults_out_is_accepted():
    for name in NAMES:
        build_objective(name, ObjectiveRecipe(weight=1.0, temperature=None, layers="auto"), TrainRecipe())


def test_needs_are_united():
    assert Needs(labels=True) | Needs(features=True) == Needs(labels=True, features=True)
    assert Needs(teacher_logits=True) | Needs() == Needs(teacher_logits=True)
