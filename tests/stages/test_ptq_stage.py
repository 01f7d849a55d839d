"""The post-training stage on a trained net: targets, layers that go back to float, what is recorded."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from edgekd.data.open import open_data
from edgekd.errors import PreconditionError
from edgekd.models.fold import fold_batch_norms
from edgekd.models.resolve import resolve_model
from edgekd.quant.fake_quant import WeightFakeQuant
from edgekd.quant.qat import QuantizedModel
from edgekd.quant.sensitivity import layer_sensitivity
from edgekd.recipe import DataRecipe, InputRecipe
from edgekd.recipe_stages import AugmentRecipe, ObjectiveRecipe, PtqStage, QuantizeStage
from edgekd.stages.base import StageContext, StageOutcome
from edgekd.stages.ptq import PostTrainingQuantize
from edgekd.stages.quantize import Quantize


@pytest.fixture
def context(context: StageContext) -> StageContext:
    """The room's, without a teacher: nothing is trained here. Calibration has more to choose from."""
    data = open_data(DataRecipe(path="builtin:digits", max_train=512), base=context.folder)
    return replace(context, name="quantize", data=data, teacher=None)


@pytest.fixture
def net(nets, digits_teacher) -> nn.Module:
    return resolve_model(digits_teacher, classes=10, input=InputRecipe(), base=nets, where="s").module


def sabotage(net: nn.Module) -> nn.Module:
    """A dead channel that every output of ``first`` would weigh heavily: no steps are left for the others."""
    with torch.no_grad():
        for tensor in (net.stem.weight, net.norm.weight, net.norm.bias):
            tensor[0] = 0
        net.first.weight[:, 0] = 100.0
    return net


def ptq(net: nn.Module, context: StageContext, **settings) -> tuple[PostTrainingQuantize, StageOutcome]:
    stage = PostTrainingQuantize(PtqStage(calibration_samples=100, **settings))
    stage.requires(net, context)
    outcome = stage.apply(net, context)
    stage.ensures(outcome.model)
    json.dumps(outcome.facts)
    return stage, outcome


def test_without_a_target_nothing_goes_back_to_float(net, context) -> None:
    _, outcome = ptq(sabotage(net), context)
    assert outcome.facts["kept_float"] == [] and outcome.facts["target_met"] is None
    assert {trial["bias_correction"] for trial in outcome.facts["trials"]} == {True, False}
    _, outcome = ptq(copy.deepcopy(net), context, bias_correction=False)
    assert outcome.facts["trials"] == [], "one candidate needs no judging"


@pytest.mark.parametrize("target", [{"min_agreement": 0.97}, {"max_accuracy_drop": 0.02}])
def test_the_sabotaged_layer_goes_back_to_float(net, context, target) -> None:
    sabotage(net)
    weight = net.first.weight.detach().clone()
    _, outcome = ptq(net, context, max_trials=2, ranges="auto", **target)
    assert [entry["name"] for entry in outcome.facts["kept_float"]] == ["first"]
    assert outcome.facts["target_met"] is True and len(outcome.facts["trials"]) == 2
    assert outcome.facts["sensitivity"][0]["name"] == "first"
    assert 0 < outcome.facts["kept_float"][0]["macs_share"] < 1
    assert any("first stays in float" in note for note in outcome.notes)
    model = outcome.model
    assert isinstance(model, QuantizedModel)
    assert not any(isinstance(m, WeightFakeQuant) for m in model.model.first.modules())
    ratio = model.model.first.weight / weight  # batch norm was folded in: a factor per channel
    torch.testing.assert_close(ratio, ratio[:, :1, :1, :1].expand_as(ratio), rtol=1e-3, atol=1e-5)


def test_attach_rebuilds_a_network_with_layers_in_float(net, context) -> None:
    again = copy.deepcopy(sabotage(net))
    stage, outcome = ptq(net, context, min_agreement=0.97)
    facts = json.loads(json.dumps(outcome.facts))
    rebuilt = stage.attach(again, facts, context)
    rebuilt.load_state_dict(outcome.model.state_dict())
    x = torch.rand(4, *context.preprocess.input_shape)
    with torch.no_grad():
        assert torch.equal(rebuilt.eval()(x), outcome.model.eval()(x))
    assert rebuilt.float_layers == outcome.model.float_layers


def test_a_target_out_of_reach_is_said(net, context) -> None:
    _, outcome = ptq(sabotage(net), context, min_agreement=1.0, max_float_layers=0)
    assert outcome.facts["target_met"] is False and outcome.facts["kept_float"] == []
    assert any("the target is missed" in note for note in outcome.notes)


def test_the_diagnostics_are_recorded(net, context) -> None:
    _, outcome = ptq(net, context, smooth=0.5)
    assert set(outcome.facts["zero_shares"]) == {"stem", "first", "second", "head"}
    assert all(0 <= share < 0.5 for share in outcome.facts["zero_shares"].values())
    assert any("nothing to smooth" in note for note in outcome.notes)
    assert any("calibrated with 100 of" in note for note in outcome.notes)


def test_a_network_after_training_can_be_ranked_too(net, context) -> None:
    recipe = QuantizeStage(
        epochs=1, batch_size=64, objectives={"ce": ObjectiveRecipe()}, augment=AugmentRecipe(hflip=0.0)
    )
    outcome = Quantize(recipe).apply(sabotage(net), context)
    assert set(outcome.facts["zero_shares"]) == {"stem", "first", "second", "head"}
    ranking = layer_sensitivity(outcome.model, context.calibration(64))
    assert ranking[0].name == "first"


def test_a_model_without_layers_is_refused(context) -> None:
    with pytest.raises(PreconditionError, match="no convolution or linear layer"):
        PostTrainingQuantize(PtqStage()).requires(nn.Sequential(nn.Flatten()), context)


def closeness(outcome: StageOutcome, net: nn.Module, context: StageContext) -> float:
    """Squared error of the logits on samples that nothing was chosen by."""
    x = torch.cat(list(context.calibration(300)))[200:]
    with torch.no_grad():
        return float((outcome.model.eval()(x) - net.eval()(x)).square().mean())


def test_rounding_by_gptq_is_closer_and_is_taken_where_it_agrees_more(net, context) -> None:
    made = {}
    for rounding in ("nearest", "gptq", "auto"):
        _, made[rounding] = ptq(copy.deepcopy(net), context, rounding=rounding, weight_bits=4)
    assert [each.facts["rounding"] for each in made.values()] == ["nearest", "gptq", "gptq"]
    trial = made["auto"].facts["rounding_trial"]
    assert trial["score"] > trial["nearest"]
    assert closeness(made["gptq"], net, context) < 0.7 * closeness(made["nearest"], net, context)
    assert made["gptq"].facts["bias_correction"] is False
    assert any(note.startswith("GPTQ rounded the weights of 4 layers") for note in made["auto"].notes)


def test_a_target_that_holds_needs_no_rounding(net, context) -> None:
    _, outcome = ptq(net, context, min_agreement=0.5)
    assert outcome.facts["rounding"] == "nearest" and outcome.facts["rounding_trial"] is None


def test_what_does_not_agree_more_is_taken_back(net, context, monkeypatch) -> None:
    """Weights that GPTQ would make worse leave the network as the search had found it."""
    _, expected = ptq(copy.deepcopy(net), context, rounding="nearest")
    monkeypatch.setattr(
        "edgekd.stages.ptq_search.solved_weights",
        lambda model, batches: {"first": torch.zeros_like(model.model.first.weight)},
    )
    _, outcome = ptq(net, context)
    assert outcome.facts["rounding"] == "nearest" and outcome.facts["rounding_trial"]["score"] < 1
    x = torch.cat(list(context.calibration(64)))
    with torch.no_grad():
        assert torch.equal(outcome.model.eval()(x), expected.model.eval()(x))


def test_a_layer_back_in_float_has_the_weight_that_it_came_with(net, context) -> None:
    fold_batch_norms(sabotage(net), context.example)
    weights = {name: each.detach().clone() for name, each in net.named_parameters()}
    _, outcome = ptq(net, context, min_agreement=0.97, rounding="gptq", bias_correction=False)
    assert outcome.facts["rounding"] == "gptq"
    assert [entry["name"] for entry in outcome.facts["kept_float"]] == ["first"]
    inner = outcome.model.model
    assert torch.equal(inner.first.weight, weights["first.weight"])
    assert not torch.equal(inner.second.weight, weights["second.weight"])


def test_progress_names_the_steps(net, context) -> None:
    told: list[tuple[str, int, int]] = []
    watched = replace(context, progress=lambda what, done, total: told.append((what, done, total)))
    ptq(sabotage(net), watched, min_agreement=0.97)
    assert {what for what, _, _ in told} == {"calibrate", "tune", "sensitivity"}
    assert all(done <= total for _, done, total in told)
