"""Parallel branches become one convolution, if and only if the module's own merge tells the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgekd.models.directory import save_model_dir
from edgekd.models.fold import fold_batch_norms
from edgekd.models.reparametrize import is_reparametrized, merge_branches, reparametrize


class Branches(nn.Module):
    """3x3, 1x1 and identity, each with a batch norm, as RepVGG trains them."""

    def __init__(self, channels: int, fault: str = "") -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels))
        self.point = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))
        self.identity = nn.BatchNorm2d(channels)
        self.merged: nn.Conv2d | None = None
        self.fault = fault

    def forward(self, x: Tensor) -> Tensor:
        if self.merged is not None:
            return torch.relu(self.merged(x))
        return torch.relu(self.wide(x) + self.point(x) + self.identity(x))

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        if self.fault == "raises":
            raise RuntimeError("not today")
        channels = self.identity.num_features
        impulse = torch.zeros(1, channels, 3, 3)
        merged = nn.Conv2d(channels, channels, 3, padding=1)
        assert merged.bias is not None
        merged.bias.copy_(self._sum(impulse)[0, :, 1, 1])
        for c in range(channels):
            probe = torch.zeros(1, channels, 5, 5)
            probe[0, c, 2, 2] = 1
            answer = self._sum(probe)[0] - merged.bias[:, None, None]
            merged.weight[:, c] = answer[:, 1:4, 1:4].flip(1, 2)
        if self.fault == "lies":
            merged.weight[:, :, 0, 0] += 0.1
        self.merged = merged
        del self.wide, self.point, self.identity

    def _sum(self, x: Tensor) -> Tensor:
        return self.wide(x) + self.point(x) + self.identity(x)


def net(fault: str = "") -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), Branches(8, fault), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 4),
    )  # fmt: skip
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


@torch.no_grad()
def test_branches_merge_and_the_answer_stays() -> None:
    model, x = net(), torch.randn(2, 3, 12, 12)
    expected = model.eval()(x)
    model.train()
    assert merge_branches(model, torch.zeros(2, 3, 12, 12)) == ["2"]
    assert all(module.training for module in model.modules()), "the mode is as it was"
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == 2
    torch.testing.assert_close(model.eval()(x), expected, rtol=1e-4, atol=1e-5)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not is_reparametrized(model) and merge_branches(model, x) == []


@pytest.mark.parametrize("fault", ["raises", "lies"])
@torch.no_grad()
def test_a_merge_that_fails_or_changes_the_answer_is_left_alone(fault: str) -> None:
    model, x = net(fault).eval(), torch.randn(2, 3, 12, 12)
    expected = model(x)
    assert reparametrize(model, torch.zeros(2, 3, 12, 12)) == [] and not is_reparametrized(model)
    assert torch.equal(model(x), expected)


def test_masked_branches_stay_apart() -> None:
    model = net()
    parametrize.register_parametrization(model[2].wide[0], "weight", nn.Identity())  # type: ignore[union-attr, index, arg-type]
    assert merge_branches(model, torch.zeros(2, 3, 12, 12)) == []


def test_folding_merges_first() -> None:
    model = net()
    assert fold_batch_norms(model, torch.zeros(2, 3, 12, 12)) == ["1"]
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == 2


@torch.no_grad()
@pytest.mark.parametrize("folded", [False, True])
def test_a_saved_model_comes_back_merged(folded: bool, resolve: Any, tmp_path: Path) -> None:
    loaded = resolve("timm:mobileone_s0@random", size=32)
    model, example = loaded.module, torch.zeros(2, 3, 32, 32)
    layers = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    assert len(reparametrize(model, example)) > 20
    if folded:
        fold_batch_norms(model, example)
    names = [str(k) for k in range(loaded.classes)]
    save_model_dir(
        tmp_path / "saved", model, spec=loaded.architecture, classes=names, preprocess=loaded.preprocess,
        folded=folded,
    )  # fmt: skip
    again = resolve("saved").module
    assert sum(isinstance(module, nn.Conv2d) for module in again.modules()) < layers
    assert is_reparametrized(again), "and a second save says so again"
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(x), model(x))
