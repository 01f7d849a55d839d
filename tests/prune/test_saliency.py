"""Wanda's formula, its hooks and when it differs from magnitude."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.errors import PreconditionError
from edgekd.prune.apply import prune
from edgekd.prune.mask import find_mask
from edgekd.prune.saliency import collect_input_norms, record_squared_inputs, wanda


def test_wanda_formula_for_linear_and_convolution() -> None:
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(4, 3)
    batches = [torch.randn(2, 5, 4, generator=generator) for _ in range(3)]
    norms = collect_input_norms(linear, {"": linear}, batches)[""]
    rows = torch.cat([batch.reshape(-1, 4) for batch in batches])
    expected = linear.weight.detach().abs() * rows.norm(dim=0)
    assert torch.allclose(wanda(linear.weight, norms), expected, rtol=1e-5)

    conv = nn.Conv2d(4, 6, 3)
    images = [torch.randn(2, 4, 5, 5, generator=generator) for _ in range(3)]
    norms = collect_input_norms(conv, {"": conv}, images)[""]
    per_channel = torch.cat(images).transpose(0, 1).reshape(4, -1).norm(dim=1)
    expected = conv.weight.detach().abs() * per_channel.reshape(1, 4, 1, 1)
    assert torch.allclose(wanda(conv.weight, norms), expected, rtol=1e-5)


def test_wanda_reads_a_groups_own_inputs() -> None:
    weight = torch.ones(4, 2, 1, 1)
    scores = wanda(weight, torch.tensor([1.0, 2.0, 3.0, 4.0]), groups=2)
    assert scores.flatten(1).tolist() == [[1, 2], [1, 2], [3, 4], [3, 4]]


def test_wanda_keeps_small_weights_on_loud_channels() -> None:
    weights = {"weight": torch.tensor([[1.0, 0.9, 0.8, 0.7]]), "bias": torch.zeros(1)}
    inputs = torch.tensor([[0.1, 0.1, 5.0, 5.0]])
    by_magnitude, by_wanda = nn.Linear(4, 1), nn.Linear(4, 1)
    by_magnitude.load_state_dict(weights)
    by_wanda.load_state_dict(weights)
    prune(nn.Sequential(by_magnitude), "2:4")
    report = prune(nn.Sequential(by_wanda), "2:4", saliency="wanda", calibration=[inputs])
    assert find_mask(by_magnitude).mask.tolist() == [[True, True, False, False]]
    assert find_mask(by_wanda).mask.tolist() == [[False, False, True, True]]
    assert report.saliency == "wanda"
    assert report.kept_magnitude == pytest.approx(1.5 / 3.4)


def test_hooks_and_training_flags_are_restored_even_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 4))
    model.train()
    model[1].eval()
    layers = {"0": model[0], "2": model[2]}
    with pytest.raises(RuntimeError):
        collect_input_norms(model, layers, [torch.randn(2, 4), torch.randn(2, 5)])
    assert not model[0]._forward_pre_hooks
    assert [part.training for part in model.modules()] == [True, True, False, True]
    with record_squared_inputs(layers) as sums:
        model(torch.ones(3, 4))
    assert sums["0"].tolist() == [3.0] * 4
    model(torch.ones(3, 4))
    assert sums["0"].tolist() == [3.0] * 4, "no hook is left"


def test_wanda_without_batches_and_with_a_layer_that_never_runs() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.used(inputs)

    for none in (None, []):
        with pytest.raises(PreconditionError, match="calibration batches"):
            prune(Unused(), "2:4", saliency="wanda", calibration=none)
    report = prune(Unused(), "2:4", saliency="wanda", calibration=[torch.randn(2, 4)])
    assert report.layers == ["used"]
    assert report.skipped == [("unused", "not run by the calibration batches")]
