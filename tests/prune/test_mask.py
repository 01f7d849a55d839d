"""A mask survives the optimizer, a checkpoint, a replacement and baking."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from edgekd.errors import ModelError, PreconditionError, RecipeError
from edgekd.models.bake import bake_parametrizations
from edgekd.prune.apply import attach, check_masks, freeze_masks, masked_layers, prune
from edgekd.prune.mask import NMMask, find_mask, place_mask
from edgekd.prune.pattern import Pattern, nm_mask
from edgekd.prune.sr_ste import SRSTEMask


class Padded(nn.Conv2d):
    """A subclass, like the convolutions of EfficientNet-Lite's packages."""


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        Padded(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 8),
    )


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        images = torch.randn(8, 1, 6, 6, generator=generator)
        loss = model(images).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("kind", ["fixed", "sr-ste"])
@pytest.mark.parametrize("pattern", ["2:4", "1:4", "2:8", "4:8"])
def test_no_bad_group_after_50_steps_with_weight_decay(kind: str, pattern: str) -> None:
    model = small_net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.05)  # built before the masks
    before = copy.deepcopy(model[2].weight.detach())
    report = prune(model, pattern, mask=kind)
    train(model, optimizer, 50)
    assert report.layers == ["2", "6"]
    assert check_masks(model, pattern) == []
    assert not torch.equal(before, model[2].parametrizations.weight.original), (
        "the optimizer must reach the weight"
    )
    freeze_masks(model)
    bake_parametrizations(model)
    assert not masked_layers(model)
    assert type(model[2]) is Padded
    assert check_masks(model, pattern, report.layers) == []


def test_zeroing_once_is_undone_by_one_step() -> None:
    """The contrast: why a mask is a parametrization."""
    model = small_net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.05)
    report = prune(model, "2:4")
    bake_parametrizations(model)
    assert check_masks(model, "2:4", report.layers) == []
    train(model, optimizer, 1)
    assert check_masks(model, "2:4", report.layers) == report.layers


def test_gradient_of_masked_weights_is_zero_and_dtype_is_kept() -> None:
    layer = nn.Linear(8, 4, bias=False).bfloat16()
    mask = nm_mask(layer.weight, layer.weight.abs(), Pattern(2, 4))
    place_mask(layer, NMMask(mask))
    assert layer.weight.dtype == torch.bfloat16
    layer(torch.randn(2, 8, dtype=torch.bfloat16)).sum().backward()
    gradient = layer.parametrizations.weight.original.grad
    assert (gradient[~mask] == 0).all()
    assert (gradient[mask] != 0).any()


@pytest.mark.parametrize("kind", ["fixed", "sr-ste"])
def test_a_checkpoint_brings_its_masks(kind: str) -> None:
    model = small_net()
    report = prune(model, "2:4", mask=kind)
    train(model, torch.optim.AdamW(model.parameters(), lr=1e-2), 3)
    images = torch.randn(2, 1, 6, 6)
    expected = model.eval()(images)
    resumed = small_net()
    attach(resumed, report.layers, "2:4", kind)
    resumed.load_state_dict(model.state_dict())
    assert torch.equal(resumed.eval()(images), expected)
    assert sorted(masked_layers(resumed)) == report.layers
    assert check_masks(resumed, "2:4") == []
    # An SR-STE checkpoint also loads into fixed masks: the key is the same.
    fixed = small_net()
    attach(fixed, report.layers, "2:4")
    fixed.load_state_dict(model.state_dict())
    assert torch.equal(fixed.eval()(images), expected)


def test_attach_alone_keeps_every_weight_and_refuses_a_wrong_name() -> None:
    model = small_net()
    dense = model[2].weight.detach().clone()
    attach(model, ["2"], "2:4")
    assert torch.equal(model[2].weight, dense)
    assert check_masks(model, "2:4") == ["2"]
    with pytest.raises(ModelError, match=r"^conv9: not a Conv2d or Linear"):
        attach(model, ["conv9"], "2:4")


def test_pruning_again_replaces_the_mask_and_keeps_the_parameter() -> None:
    model = small_net()
    weight = model[2].weight
    prune(model, "4:8")
    prune(model, "1:8")
    assert len(model[2].parametrizations.weight) == 1
    assert model[2].parametrizations.weight.original is weight
    assert find_mask(model[2]).mask.float().mean() == 1 / 8


def test_a_mask_goes_before_what_is_chained_already() -> None:
    class Shift(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight + 1

    layer = nn.Linear(8, 2)
    parametrize.register_parametrization(layer, "weight", Shift())
    place_mask(layer, NMMask(torch.zeros(2, 8, dtype=torch.bool)))
    assert torch.equal(layer.weight, torch.ones(2, 8)), "masked first, then shifted"


def test_assigning_a_weight_stores_it_under_the_mask() -> None:
    layer = nn.Linear(4, 1)
    place_mask(layer, NMMask(torch.tensor([[True, False, True, False]])))
    layer.weight = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert layer.weight.tolist() == [[1.0, 0.0, 3.0, 0.0]]
    assert layer.parametrizations.weight.original.tolist() == [[1.0, 2.0, 3.0, 4.0]]


def test_checking_nothing_is_an_error_and_not_a_pass() -> None:
    with pytest.raises(PreconditionError, match="no layer carries a mask"):
        check_masks(small_net(), "2:4")


def test_the_report_counts_what_was_kept() -> None:
    model = nn.Sequential(nn.Linear(4, 1), nn.Linear(1, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[4.0, -3.0, 2.0, 1.0]]))
    report = prune(model, "2:4")
    assert report.kept_magnitude == pytest.approx(0.7)
    assert report.kept_magnitude_by_layer == {"0": pytest.approx(0.7)}
    assert report.layers_total == 2
    assert report.to_json()["skipped"] == [("1", "input features 1 are not a multiple of 4")]


def test_weights_that_are_not_finite_are_refused_before_any_mask() -> None:
    model = small_net()
    with torch.no_grad():
        model[6].weight[0, 0] = float("nan")
    with pytest.raises(PreconditionError, match=r"^6: .*not finite"):
        prune(model, "2:4")
    assert masked_layers(model) == {}


def test_sr_ste_gradient_against_the_formula() -> None:
    """gradient = g + decay * (1 - mask) * w, for y = x . (mask * w) with g = x."""
    layer = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, -2.0, 1.0, 0.25]]))
    place_mask(layer, SRSTEMask((1, 4), Pattern(2, 4), decay=0.1))
    layer(torch.tensor([[1.0, 2.0, 3.0, 4.0]])).backward()
    gradient = layer.parametrizations.weight.original.grad
    assert torch.allclose(gradient, torch.tensor([[1.0 + 0.1 * 0.5, 2.0, 3.0, 4.0 + 0.1 * 0.25]]))


def test_sr_ste_follows_the_weights_until_frozen() -> None:
    layer = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[4.0, 3.0, 2.0, 1.0]]))
    model = nn.Sequential(layer)
    prune(model, "2:4", mask="sr-ste")
    stored = layer.parametrizations.weight.original
    assert layer.weight.tolist() == [[4.0, 3.0, 0.0, 0.0]]
    with torch.no_grad():
        stored.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    assert layer.weight.tolist() == [[0.0, 0.0, 3.0, 4.0]]
    assert find_mask(layer).mask.tolist() == [[False, False, True, True]]
    with torch.no_grad():
        stored.copy_(torch.tensor([[5.0, 2.0, 3.0, 4.0]]))
    assert freeze_masks(model) == ["0"], "frozen at the current weights, not at the last forward pass"
    with torch.no_grad():
        stored.copy_(torch.tensor([[1.0, 9.0, 9.0, 1.0]]))
    assert layer.weight.tolist() == [[1.0, 0.0, 0.0, 1.0]]
    assert freeze_masks(model) == []


def test_sr_ste_lets_a_pruned_weight_come_back() -> None:
    """Its gradient is the dense one: a pruned weight that would help grows, under a fixed mask it cannot."""
    targets = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    ends = {}
    for kind in ("fixed", "sr-ste"):
        layer = nn.Linear(4, 1, bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[0.2, 0.2, 0.1, 0.1]]))
        prune(nn.Sequential(layer), "2:4", mask=kind)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        for _ in range(60):
            optimizer.zero_grad()
            (layer.weight - targets).square().sum().backward()
            optimizer.step()
        ends[kind] = layer.weight.detach()
    assert torch.allclose(ends["sr-ste"], targets, atol=1e-2)
    assert not ends["fixed"][0, 2:].any()


def test_sr_ste_twice_in_one_graph_backpropagates() -> None:
    layer = nn.Linear(8, 8)
    place_mask(layer, SRSTEMask((8, 8), Pattern(2, 4)))
    layer(layer(torch.randn(2, 8))).sum().backward()
    assert torch.isfinite(layer.parametrizations.weight.original.grad).all()


def test_sr_ste_with_wanda_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"^prune\.saliency"):
        prune(small_net(), "2:4", mask="sr-ste", saliency="wanda", calibration=[torch.randn(2, 1, 6, 6)])
