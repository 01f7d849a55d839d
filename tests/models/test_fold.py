"""Folding batch norm keeps the function, and folds everything that can be folded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from edgekd.models.fold import fold_batch_norms
from edgekd.models.torchvision_shim import ensure_torchvision_ops


def lively(model: nn.Module) -> nn.Module:
    """Batch norms with statistics that matter, one gamma negative and one zero."""
    generator = torch.Generator().manual_seed(0)
    for norm in model.modules():
        if isinstance(norm, _BatchNorm):
            shape = norm.running_mean.shape
            norm.running_mean.copy_(torch.randn(shape, generator=generator) * 0.3)
            norm.running_var.copy_(torch.rand(shape, generator=generator) + 0.5)
            if norm.affine:
                norm.weight.data.copy_(torch.rand(shape, generator=generator) + 0.5)
                norm.weight.data[0], norm.weight.data[1] = -0.7, 0.0
                norm.bias.data.copy_(torch.randn(shape, generator=generator) * 0.3)
    return model.eval()


def folds(model: nn.Module, x: Tensor) -> list[str]:
    lively(model)
    with torch.no_grad():
        before = model(x)
        folded = fold_batch_norms(model, x)
        after = model(x)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
    return folded


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_byobnet"])
def test_real_nets_keep_their_function_and_lose_every_batch_norm(name: str) -> None:
    ensure_torchvision_ops()
    import timm

    model = timm.create_model(name, num_classes=5)
    norms = [path for path, m in model.named_modules() if isinstance(m, _BatchNorm)]
    assert folds(model, torch.randn(2, 3, 64, 64)) and norms
    assert not any(isinstance(m, _BatchNorm) for m in model.modules())


def test_an_activation_inside_the_norm_layer_stays() -> None:
    ensure_torchvision_ops()
    from timm.layers import BatchNormAct2d

    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), BatchNormAct2d(4))
    assert folds(model, torch.randn(2, 3, 8, 8)) == ["1"]
    with torch.no_grad():
        assert (model(torch.randn(2, 3, 8, 8)) >= 0).all()


class Mask(nn.Module):
    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


def test_a_mask_stays_true_and_stays_a_parametrization() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4))
    mask = torch.rand(4, 4, 3, 3) > 0.5
    parametrize.register_parametrization(model[0], "weight", Mask(mask))
    assert folds(model, torch.randn(2, 4, 8, 8)) == ["1"]
    assert parametrize.is_parametrized(model[0], "weight")
    assert (model[0].weight[~mask] == 0).all()
    model[0].parametrizations["weight"].original.data.add_(1.0)
    assert (model[0].weight[~mask] == 0).all()


def test_a_parametrization_that_does_not_scale_is_left_alone() -> None:
    class Shifted(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight + 1.0

    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    parametrize.register_parametrization(model[0], "weight", Shifted())
    folds(model, torch.randn(2, 4, 8, 8))  # the norm becomes a depthwise convolution of its own
    assert isinstance(model[1], nn.Conv2d) and model[1].groups == 4


def test_a_standardised_weight_is_stored_and_folded() -> None:
    ensure_torchvision_ops()
    from timm.layers import StdConv2d

    model = nn.Sequential(StdConv2d(4, 6, 3), nn.BatchNorm2d(6))
    assert folds(model, torch.randn(2, 4, 8, 8)) == ["1"]
    assert type(model[0]) is nn.Conv2d


def test_a_layer_that_runs_twice_is_left_alone() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)
            self.a, self.b = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.conv(F.relu(self.a(self.conv(x)))))

    model = Shared()
    weight = model.conv.weight.detach().clone()
    assert folds(model, torch.randn(2, 4, 8, 8)) == ["a", "b"]
    assert torch.equal(model.conv.weight, weight)


def test_a_value_that_others_read_too_is_not_folded_away() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.norm(y) + y

    folds(Fork(), torch.randn(2, 4, 8, 8))


def test_a_norm_before_its_convolution_becomes_a_depthwise_convolution() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3))
    assert folds(model, torch.randn(2, 4, 8, 8)) == ["0"]
    assert isinstance(model[0], nn.Conv2d) and model[0].groups == 4


def test_linear_layers_over_tokens_fold_through_the_flattening() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(6, 8), nn.BatchNorm1d(8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.linear(x)
            return self.norm(x.flatten(0, 1)).reshape_as(x)

    assert folds(Tokens(), torch.randn(2, 5, 6)) == ["norm"]


def test_a_norm_without_running_statistics_stays() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    assert fold_batch_norms(model, torch.randn(2, 3, 4, 4)) == []
