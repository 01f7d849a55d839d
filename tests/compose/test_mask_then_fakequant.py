"""Orderings of mask, fake-quant, fine-tuning, checkpoint and baking; the pattern holds in the integers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgekd.prune.apply import attach, check_masks, freeze_masks, masked_layers, prune
from edgekd.prune.check import violations


class SymmetricInt8(nn.Module):
    """A dummy per-channel fake-quant with zero point 0 and a straight-through gradient."""

    def scale(self, weight: Tensor) -> Tensor:
        return (
            weight.detach().flatten(1).abs().amax(1).clamp_min(1e-8).reshape(-1, *[1] * (weight.dim() - 1))
            / 127
        )

    def forward(self, weight: Tensor) -> Tensor:
        step = self.scale(weight)
        rounded = (weight / step).round().clamp(-127, 127) * step
        return weight + (rounded - weight).detach()


class AsymmetricInt8(SymmetricInt8):
    """Rounds on a grid that does not hold 0."""

    def forward(self, weight: Tensor) -> Tensor:
        step = self.scale(weight)
        return weight + (((weight / step + 0.5).round() - 0.5) * step - weight).detach()


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 4))


def quantize(model: nn.Module, step: type[nn.Module] = SymmetricInt8) -> None:
    for layer in (model[0], model[3]):
        parametrize.register_parametrization(layer, "weight", step())


def train(model: nn.Module, steps: int = 30) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.05)
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 4, 6, 6, generator=generator)).square().mean().backward()
        optimizer.step()


def integers_of(layer: nn.Module) -> Tensor:
    step = SymmetricInt8().scale(layer.weight)
    return (layer.weight / step).round().to(torch.int8)


def bad_groups(model: nn.Module) -> int:
    conv, linear = integers_of(model[0]).numpy(), integers_of(model[3]).numpy()
    return violations(conv, "2:4", "conv") + violations(linear, "2:4", "linear")


@pytest.mark.parametrize("mask", ["fixed", "sr-ste"])
def test_mask_then_fakequant_then_train_then_bake(mask: str) -> None:
    model = net()
    prune(model, "2:4", mask=mask)
    quantize(model)
    train(model)
    freeze_masks(model)
    assert check_masks(model, "2:4") == []
    assert bad_groups(model) == 0
    before = model[0].weight.detach().clone()
    for layer in masked_layers(model).values():
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    assert type(model[0]) is nn.Conv2d
    assert torch.equal(model[0].weight, before)
    assert bad_groups(model) == 0
    assert check_masks(model, "2:4", ["0", "3"]) == []


def test_fakequant_then_mask_puts_the_mask_first() -> None:
    model = net()
    quantize(model)
    prune(model, "2:4")
    kinds = [type(step).__name__ for step in model[0].parametrizations.weight]
    assert kinds == ["NMMask", "SymmetricInt8"]
    train(model)
    assert bad_groups(model) == 0


def test_mask_then_train_then_fakequant_then_train() -> None:
    model = net()
    prune(model, "2:4")
    train(model, 10)
    quantize(model)
    train(model, 10)
    assert bad_groups(model) == 0


def test_a_checkpoint_of_mask_and_fakequant_loads_into_the_same_chain() -> None:
    model = net()
    report = prune(model, "2:4", mask="sr-ste")
    quantize(model)
    train(model, 10)
    freeze_masks(model)
    resumed = net()
    attach(resumed, report.layers, "2:4")
    quantize(resumed)
    resumed.load_state_dict(model.state_dict())
    images = torch.randn(2, 4, 6, 6)
    assert torch.equal(resumed(images), model(images))
    train(resumed, 10)
    assert bad_groups(resumed) == 0


def test_a_grid_without_zero_is_caught_by_the_check() -> None:
    """The contrast: the check reads effective weights, a mask underneath does not help."""
    model = net()
    prune(model, "2:4")
    quantize(model, AsymmetricInt8)
    assert check_masks(model, "2:4") == ["0", "3"]
