from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from edgekd.data.open import open_data
from edgekd.distill.teacher import Teacher
from edgekd.errors import PreconditionError, TrainingDivergedError
from edgekd.models.resolve import resolve_model
from edgekd.recipe import DataRecipe, InputRecipe
from edgekd.recipe_stages import AugmentRecipe, ObjectiveRecipe, TrainRecipe
from edgekd.schedule import learning_rate
from edgekd.train import FitResult, fit
from edgekd.training import Training


@pytest.fixture(scope="module")
def data(nets):
    return open_data(DataRecipe(path="builtin:digits", max_train=640), base=nets)


def student(nets):
    torch.manual_seed(1)
    loaded = resolve_model(
        "torch:nets.py:student", classes=10, input=InputRecipe(), base=nets, where="t", role="student"
    )
    loaded.module.requires_grad_(True)
    return loaded


def run(
    nets, data, folder: Path, recipe: TrainRecipe, teacher=None, loaded=None, seed=3, **more
) -> tuple[FitResult, dict]:
    loaded = loaded or student(nets)
    training = Training(
        stage="distill", data=data, preprocess=loaded.preprocess, teacher=teacher, seed=seed, folder=folder,
        accelerator=Accelerator(cpu=True),
    )  # fmt: skip
    result = fit(loaded.module, recipe, training, **more)
    return result, {k: v.clone() for k, v in loaded.module.state_dict().items()}


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


CE = {"ce": ObjectiveRecipe()}
PLAIN = AugmentRecipe(hflip=0.0)


def test_training_learns(nets, data, tmp_path):
    result, _ = run(
        nets, data, tmp_path, TrainRecipe(epochs=6, batch_size=32, lr=1e-2, objectives=CE, augment=PLAIN)
    )
    assert result.criterion == "top1"
    assert max(e.val_metric for e in result.history) > 0.8
    assert result.history[-1].train_loss < 0.5 * result.history[0].train_loss


def test_a_run_killed_between_epochs_ends_in_the_same_bytes(nets, data, tmp_path):
    recipe = TrainRecipe(epochs=3, batch_size=64, ema_decay=0.9, objectives=CE)
    _, whole = run(nets, data, tmp_path / "whole", recipe)

    class Killed(Exception):
        pass

    def kill(step, total):
        if step == 2 * total // 3 + 1:
            raise Killed

    with pytest.raises(Killed):
        run(nets, data, tmp_path / "killed", recipe, on_step=kill)
    assert (tmp_path / "killed" / "checkpoint.pt").exists()
    steps = []
    _, resumed = run(nets, data, tmp_path / "killed", recipe, on_step=lambda step, total: steps.append(step))
    assert same(whole, resumed)
    assert len(steps) == 9  # the last of three epochs of nine batches; the two finished ones are not repeated


def test_another_seed_gives_other_weights(nets, data, tmp_path):
    recipe = TrainRecipe(epochs=1, batch_size=64, objectives=CE)
    _, one = run(nets, data, tmp_path / "a", recipe)
    _, other = run(nets, data, tmp_path / "b", recipe, seed=4)
    assert not same(one, other)


def test_nan_loss_stops_with_step_and_sample_ids(nets, data, tmp_path):
    loaded = student(nets)

    def poison(step, total):
        if step == 2:
            with torch.no_grad():
                loaded.module.head.bias[0] = float("nan")

    with pytest.raises(TrainingDivergedError) as caught:
        run(
            nets,
            data,
            tmp_path,
            TrainRecipe(epochs=1, batch_size=32, objectives=CE),
            loaded=loaded,
            on_step=poison,
        )
    text = str(caught.value)
    assert "step 2" in text and "nan" in text and "\n" not in text
    assert data.train.source.sample_id(0).split("[")[0] in text


def test_exploding_loss_stops(nets, data, tmp_path):
    recipe = TrainRecipe(
        epochs=4, batch_size=32, optimizer="sgd", lr=1e4, warmup_epochs=0, clip_norm=None, objectives=CE
    )
    with pytest.raises(TrainingDivergedError, match="the loss is"):
        run(nets, data, tmp_path, recipe)


def test_batch_of_one_with_batch_norm_is_refused(nets, data, tmp_path):
    with pytest.raises(PreconditionError, match="batch norm"):
        run(nets, data, tmp_path, TrainRecipe(epochs=1, batch_size=1, objectives=CE))


def test_kd_moves_the_student_towards_the_teacher(nets, data, digits_teacher, tmp_path):
    module = resolve_model(digits_teacher, classes=10, input=InputRecipe(), base=nets, where="t").module
    recipe = TrainRecipe(
        epochs=12, batch_size=32, lr=1e-2, objectives={"kd": ObjectiveRecipe(temperature=2)}, augment=PLAIN
    )
    result, _ = run(nets, data, tmp_path, recipe, teacher=Teacher(module))
    assert result.history[-1].parts["kd"] < 0.5 * result.history[0].parts["kd"]
    assert result.history[-1].val_metric > 0.8


def test_squarehead_needs_equal_widths_and_attention_does_not(nets, data, digits_teacher, tmp_path):
    module = resolve_model(digits_teacher, classes=10, input=InputRecipe(), base=nets, where="t").module
    recipe = TrainRecipe(
        epochs=1, batch_size=64, objectives={"attention": ObjectiveRecipe(), "ce": ObjectiveRecipe()}
    )
    result, _ = run(nets, data, tmp_path / "a", recipe, teacher=Teacher(module))
    assert set(result.history[0].parts) == {"attention", "ce"}
    recipe = TrainRecipe(epochs=1, batch_size=64, objectives={"squarehead": ObjectiveRecipe()})
    with pytest.raises(PreconditionError) as caught:
        run(nets, data, tmp_path / "s", recipe, teacher=Teacher(module))
    assert "\n" not in str(caught.value)


def test_mixup_and_label_smoothing_train(nets, data, tmp_path):
    recipe = TrainRecipe(epochs=2, batch_size=64, lr=5e-3, label_smoothing=0.1, objectives=CE,
                         augment={"mixup": 0.4, "hflip": 0.0})  # fmt: skip
    result, _ = run(nets, data, tmp_path, recipe)
    assert result.history[1].train_loss < result.history[0].train_loss


def test_learning_rate_warms_up_and_ends_low():
    recipe = TrainRecipe(epochs=10, lr=1.0, warmup_epochs=1, min_lr_ratio=0.01)
    rates = [learning_rate(recipe, step, 20) for step in range(200)]
    assert rates[0] == pytest.approx(1 / 21)
    assert max(rates) == rates[20] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.01)
    assert all(a >= b for a, b in itertools.pairwise(rates[20:]))
