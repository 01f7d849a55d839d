"""The model's data config, the recipe's overrides, and sizes that a model refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.errors import ModelError
from edgekd.models.preprocessing import from_declared, from_timm
from edgekd.models.trial import try_forward
from edgekd.recipe import InputRecipe

CONFIG = {
    "input_size": (3, 160, 128),
    "mean": (0.2, 0.4, 0.6),
    "std": (0.1, 0.2, 0.3),
    "interpolation": "bilinear",
    "crop_pct": 0.95,
    "crop_mode": "squash",
}


def test_timm_config_is_taken_whole():
    own, notes = from_timm(CONFIG, InputRecipe(), 3, "teacher")
    assert own.model_dump() == {
        "height": 160,
        "width": 128,
        "channels": 3,
        "mean": (0.2, 0.4, 0.6),
        "std": (0.1, 0.2, 0.3),
        "interpolation": "bilinear",
        "crop_pct": 0.95,
        "crop_mode": "squash",
    }
    assert notes == []


def test_one_channel_takes_the_average():
    own, _ = from_timm(CONFIG, InputRecipe(), 1, "teacher")
    assert own.mean == pytest.approx((0.4,))
    assert own.std == pytest.approx((0.2,))


def test_overrides_win():
    recipe = InputRecipe(size=(64, 48), mean=(0.5,), std=(1, 2, 3), interpolation="nearest", crop_pct=1)
    own, _ = from_timm(CONFIG, recipe, 3, "teacher")
    assert (own.height, own.width) == (64, 48)
    assert own.mean == (0.5, 0.5, 0.5)
    assert own.std == (1, 2, 3)
    assert (own.interpolation, own.crop_pct) == ("nearest", 1)


def test_what_cannot_be_done_is_noted():
    own, notes = from_timm(
        {**CONFIG, "interpolation": "random", "crop_mode": "border"}, InputRecipe(), 3, "t"
    )
    assert (own.interpolation, own.crop_mode) == ("bicubic", "center")
    assert len(notes) == 2


def test_defaults_are_imagenet():
    own = from_declared({}, InputRecipe(), 3, "teacher")
    assert own.input_shape == (3, 224, 224)
    assert own.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("recipe", "part"),
    [
        (InputRecipe(mean=(0.1, 0.2)), "input.mean: has 2 values, the model takes 3 channels"),
        (InputRecipe(std=(0.0,)), "input.std: must be above 0"),
        (InputRecipe(size=0), "input.size: must be above 0"),
        (InputRecipe(channels=1), "takes 3 channels"),
    ],
)
def test_impossible_overrides(recipe, part):
    with pytest.raises(ModelError) as caught:
        from_timm(CONFIG, recipe, 3, "teacher")
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_field_names_the_nearest():
    with pytest.raises(ModelError) as caught:
        from_declared({"heigth": 8, "width": -1}, InputRecipe(), 3, "net.py")
    assert str(caught.value) == "net.py: preprocess.heigth: unknown field; did you mean 'height'?"


def test_a_transformer_at_another_size(refused):
    message = refused("timm:test_vit@random", error=ModelError, size=200)
    assert "refuses an input of 3x200x200" in message
    assert "its own 160x160" in message
    assert "timm:test_vit?img_size=200@random" in message


def test_a_network_that_shrinks_to_nothing(refused, tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def make(num_classes):\n"
        "    pools = [nn.MaxPool2d(2) for _ in range(5)]\n"
        "    head = nn.Conv2d(3, num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()\n"
        "    return nn.Sequential(*pools, *head)\n"
    )
    assert "refuses an input of 3x16x16" in refused("torch:net.py:make", error=ModelError, size=16)


def test_the_trial_changes_nothing():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(4 * 36, 6)
    )
    own = from_declared({"height": 8, "width": 8}, InputRecipe(), 3, "teacher")
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    draw = torch.get_rng_state()
    assert try_forward(module.train(), own, "teacher") == 6
    assert module.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert torch.equal(draw, torch.get_rng_state())
