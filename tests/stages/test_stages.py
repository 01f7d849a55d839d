from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from edgekd.errors import PostconditionError, PreconditionError
from edgekd.models.resolve import resolve_model
from edgekd.quant.qat import QuantizedModel
from edgekd.recipe import InputRecipe
from edgekd.recipe_stages import AugmentRecipe, ObjectiveRecipe, PruneStage, QuantizeStage
from edgekd.stages.prune import Prune
from edgekd.stages.quantize import Quantize
from edgekd.stages.teaching import teacher_for

KD = {"kd": ObjectiveRecipe(temperature=2)}
PLAIN = AugmentRecipe(hflip=0.0)


def bad_groups(weight: torch.Tensor) -> int:
    """Counted here, not by the project: groups of four input channels with more than two non-zeros."""
    rows = weight.detach().movedim(1, -1).reshape(-1, weight.shape[1])
    return int(((rows.reshape(len(rows), -1, 4) != 0).sum(-1) > 2).sum())


def prune_stage(**more) -> Prune:
    return Prune(PruneStage(epochs=1, batch_size=64, lr=1e-3, objectives=KD, augment=PLAIN, **more))


def test_pruning_holds_through_quantization(context, student):
    first = prune_stage()
    pruned = first.apply(student, context)
    second = Quantize(QuantizeStage(epochs=1, batch_size=64, lr=1e-3, objectives=KD, augment=PLAIN))
    outcome = second.apply(pruned.model, replace(context, name="quantize", folder=context.folder / "q"))
    first.ensures(outcome.model)
    second.ensures(outcome.model)
    assert isinstance(outcome.model, QuantizedModel)
    for layer in (outcome.model.model.first, outcome.model.model.second, outcome.model.model.head):
        weight = layer.weight if layer.weight.ndim == 4 else layer.weight[..., None, None]
        assert bad_groups(weight) == 0
    assert pruned.facts["prune"]["layers"] == ["first", "second", "head"]
    assert any("stem" in note for note in pruned.notes)


def test_a_broken_mask_is_noticed(context, student):
    stage = prune_stage()
    outcome = stage.apply(student, context)
    stage.ensures(outcome.model)
    outcome.model.first.parametrizations.weight[0].mask.fill_(True)
    with pytest.raises(PostconditionError, match="2:4"):
        stage.ensures(outcome.model)


def test_nan_weights_are_noticed(context, student):
    stage = Quantize(QuantizeStage(epochs=0, objectives=KD))
    outcome = stage.apply(student, context)
    stage.ensures(outcome.model)
    with torch.no_grad():
        outcome.model.model.head.bias[0] = float("nan")
    with pytest.raises(PostconditionError, match="not finite"):
        stage.ensures(outcome.model)


@pytest.mark.parametrize("kind", ["prune", "sr-ste", "quantize"])
def test_attach_rebuilds_what_apply_left(kind, context, student, nets, digits_teacher):
    stage = (
        Quantize(QuantizeStage(epochs=1, batch_size=64, objectives=KD, augment=PLAIN))
        if kind == "quantize"
        else prune_stage(mask="sr-ste" if kind == "sr-ste" else "fixed")
    )
    outcome = stage.apply(student, context)
    again = resolve_model(digits_teacher, classes=10, input=InputRecipe(), base=nets, where="s").module
    rebuilt = stage.attach(again, outcome.facts, context)
    rebuilt.load_state_dict(outcome.model.state_dict())
    stage.ensures(rebuilt)
    x = torch.rand(4, *context.preprocess.input_shape)
    with torch.no_grad():
        assert torch.equal(rebuilt.eval()(x), outcome.model.eval()(x))


def test_no_eligible_layer_is_refused_before_training(context, student):
    with pytest.raises(PreconditionError):
        prune_stage().requires(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3)), context)


def test_squarehead_with_moved_channels_is_refused(context, student):
    stage = Prune(PruneStage(permute=True, objectives={"squarehead": ObjectiveRecipe()}))
    with pytest.raises(PreconditionError, match="permute"):
        stage.requires(student, context)
    Prune(PruneStage(permute=True, teacher="dense", objectives={"squarehead": ObjectiveRecipe()})).requires(
        student, context
    )


def test_squarehead_from_the_dense_student_trains(context, student):
    recipe = PruneStage(epochs=1, batch_size=64, lr=1e-3, teacher="dense", permute=True, augment=PLAIN,
                        objectives={"squarehead": ObjectiveRecipe()})  # fmt: skip
    outcome = Prune(recipe).apply(student, context)
    assert outcome.history[0]["parts"]["squarehead"] > 0


def test_stages_with_one_augmentation_share_the_stored_answers(context):
    recipe = PruneStage(batch_size=64, objectives=KD, augment=PLAIN, teacher_cache=True)
    for name in ("distill", "prune"):
        assert teacher_for(recipe, replace(context, name=name)) is not None
    assert len(list(context.cache_folder.iterdir())) == 1
    teacher_for(recipe.model_copy(update={"augment": AugmentRecipe(hflip=0.5)}), context)
    assert len(list(context.cache_folder.iterdir())) == 2


def test_a_stage_on_labels_alone_asks_no_teacher(context):
    assert teacher_for(PruneStage(objectives={"ce": ObjectiveRecipe()}), context) is None
