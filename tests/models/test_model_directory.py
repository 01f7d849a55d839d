"""Saving a model as a folder and reading it back."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from edgekd.errors import ModelError, OutputError, PreconditionError
from edgekd.models.directory import save_model_dir
from edgekd.models.fold import fold_batch_norms

NAMES = [f"class {number}" for number in range(10)]
NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.fc(torch.relu(self.norm(self.conv(x))).mean((2, 3)))
"""


def save(model, path, folded=False):
    save_model_dir(
        path, model.module, spec=model.architecture, classes=NAMES, preprocess=model.preprocess, folded=folded
    )


def test_a_folder_that_is_not_there_names_its_neighbour(refused, tmp_path):
    (tmp_path / "stages" / "02-distill").mkdir(parents=True)
    message = refused("stages/01-distill", error=ModelError)
    assert "no such folder; did you mean '02-distill'?" in message


@pytest.fixture
def timm_model(resolve):
    return resolve("timm:test_resnet@random", channels=1, size=[32, 24], mean=[0.3], std=[0.2])


def test_round_trip_is_byte_identical(timm_model, resolve, tmp_path):
    save(timm_model, tmp_path / "first")
    again = resolve("first")
    assert again.weights == "run"
    assert again.class_names == tuple(NAMES)
    assert again.preprocess == timm_model.preprocess
    assert again.architecture == "timm:test_resnet"
    assert not again.folded
    images = torch.randn(2, 1, 32, 24)
    assert torch.equal(again.module(images), timm_model.module(images))
    save(again, tmp_path / "second")
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "first").iterdir()) == ["model.json", "model.safetensors"]


def test_folded_round_trip(timm_model, resolve, tmp_path):
    for norm in (m for m in timm_model.module.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
    images = torch.randn(2, 1, 32, 24)
    before = timm_model.module(images)
    folded = fold_batch_norms(timm_model.module, images)
    assert folded
    save(timm_model, tmp_path / "folded", folded=True)
    again = resolve("folded")
    assert again.folded
    assert not any(isinstance(m, nn.BatchNorm2d) for m in again.module.modules())
    assert torch.equal(again.module(images), timm_model.module(images))
    torch.testing.assert_close(again.module(images), before, atol=1e-4, rtol=1e-3)


def test_user_module_travels_with_its_folder(resolve, tmp_path):
    (tmp_path / "net.py").write_text(NET)
    model = resolve("torch:net.py:Net", size=16)
    save(model, tmp_path / "run")
    assert (tmp_path / "run" / "net.py").read_text() == NET
    images = torch.randn(2, 3, 16, 16)
    assert resolve("run").architecture == f"torch:{tmp_path}/net.py:Net"
    (tmp_path / "net.py").unlink()
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    again = resolve("elsewhere")
    assert torch.equal(again.module(images), model.module(images))
    assert again.architecture == f"torch:{tmp_path}/elsewhere/net.py:Net"
    save(again, tmp_path / "third")
    assert torch.equal(resolve("third").module(images), model.module(images))


def test_input_overrides_apply(timm_model, resolve, tmp_path):
    save(timm_model, tmp_path / "run")
    assert resolve("run", size=64).preprocess.input_shape == (1, 64, 64)


def test_other_class_count_is_refused(timm_model, refused, tmp_path):
    save(timm_model, tmp_path / "run")
    assert "run knows 10 classes, the data has 3" in refused("run", error=ModelError, classes=3)


def test_parametrized_weights_are_not_plain(timm_model, tmp_path):
    class Half(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight / 2

    parametrize.register_parametrization(timm_model.module.fc, "weight", Half())
    with pytest.raises(PreconditionError, match="bake them first"):
        save(timm_model, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_tied_weights_are_saved_twice(resolve, tmp_path):
    (tmp_path / "net.py").write_text(NET)
    model = resolve("torch:net.py:Net", size=16)
    model.module.norm.bias = model.module.norm.weight
    save(model, tmp_path / "run")
    assert torch.equal(resolve("run").module.norm.bias, model.module.norm.weight)


def test_unwritable_folder(timm_model, tmp_path):
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(OutputError) as caught:
        save(timm_model, tmp_path / "taken")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (lambda p: (p / "model.json").unlink(), "is not a model folder"),
        (lambda p: (p / "model.json").write_text("{"), "cannot be read"),
        (lambda p: (p / "model.json").write_text("[]"), "model.json"),
        (lambda p: (p / "model.safetensors").unlink(), "no such checkpoint"),
        (
            lambda p: (p / "model.safetensors").write_bytes((p / "model.safetensors").read_bytes()[:999]),
            "truncated",
        ),
        (lambda p: edit(p, format=2), "format"),
        (lambda p: edit(p, spec="hf:bert"), "cannot be rebuilt; got 'hf:bert'"),
        (lambda p: edit(p, spec="timm:test_vit"), "does not fit timm:test_vit"),
        (lambda p: edit(p, weights_sha256="0"), "is not the file that model.json describes"),
    ],
)
def test_damaged_folders(timm_model, refused, tmp_path, damage, part):
    save(timm_model, tmp_path / "run")
    damage(tmp_path / "run")
    assert part in refused("run", error=ModelError)


def edit(path, **changes):
    facts = json.loads((path / "model.json").read_text())
    (path / "model.json").write_text(json.dumps({**facts, **changes}))
