"""Permute, mask, fold the batch norms, fake-quantize, train: no step undoes an earlier one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from edgekd.models.bake import bake_parametrizations
from edgekd.models.fold import fold_batch_norms
from edgekd.prune.apply import check_masks, freeze_masks, prune
from edgekd.prune.permute import permute_channels


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.inner, self.inner_norm = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 4)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem_norm(self.stem(images)).relu()
        return self.head((stem + self.inner_norm(self.inner(stem))).mean((2, 3)))


@pytest.mark.parametrize("mask", ["fixed", "sr-ste"])
def test_permute_then_mask_then_fold_then_bake(mask: str) -> None:
    torch.manual_seed(0)
    model, images = Block(), torch.randn(4, 3, 8, 8)
    model(images)  # batch statistics that are not the initial ones
    model.eval()
    dense = copy.deepcopy(model)
    report = permute_channels(model, "2:4", images)
    with torch.no_grad():
        assert torch.allclose(model(images), dense(images), atol=1e-5)
    pruned = prune(model, "2:4", mask=mask, permutation=report)
    assert pruned.layers == ["inner", "head"]
    with torch.no_grad():
        expected = model(images)
        assert sorted(fold_batch_norms(model, images)) == ["inner_norm", "stem_norm"]
        assert torch.allclose(model(images), expected, atol=1e-5)
    assert check_masks(model, "2:4", pruned.layers) == []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
    freeze_masks(model)
    bake_parametrizations(model)
    assert check_masks(model, "2:4", pruned.layers) == []


def test_fold_then_permute_then_mask() -> None:
    torch.manual_seed(0)
    model, images = Block(), torch.randn(4, 3, 8, 8)
    model(images)
    model.eval()
    fold_batch_norms(model, images)
    with torch.no_grad():
        expected = model(images)
        report = permute_channels(model, "2:4", images)
        assert torch.allclose(model(images), expected, atol=1e-5)
    assert report.reason is None
    assert report.kept_after > report.kept_before
    assert check_masks(model, "2:4", prune(model, "2:4").layers) == []
