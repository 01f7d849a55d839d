"""Every layer is either masked or named with the reason."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from edgekd.errors import PreconditionError, RecipeError
from edgekd.prune.eligibility import find_eligible
from edgekd.prune.pattern import Pattern


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.multiplied = nn.Conv2d(8, 16, 3, groups=8)
        self.grouped = nn.Conv2d(16, 16, 1, groups=2)
        self.narrow = nn.Conv2d(16, 16, 1, groups=8)
        self.block = nn.Sequential(nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Conv2d(16, 20, 1))
        self.up = nn.ConvTranspose2d(16, 16, 2)
        self.normed = weight_norm(nn.Linear(8, 8))
        self.tied = nn.Linear(20, 16)
        self.tied.weight = self.head_weight = nn.Parameter(torch.randn(16, 20))
        self.copy = nn.Linear(20, 16)
        self.copy.weight = self.tied.weight
        self.head = nn.Linear(10, 3)


def test_each_skipped_layer_has_its_reason() -> None:
    found = find_eligible(Odd(), Pattern(2, 4))
    assert list(found.layers) == ["grouped", "block.0", "block.2", "tied"]
    assert dict(found.skipped) == {
        "stem": "input channels 3 are not a multiple of 4",
        "depthwise": "depthwise convolution",
        "multiplied": "depthwise convolution",
        "narrow": "input channels per group 2 are not a multiple of 4",
        "normed": "the weight is computed from several tensors (weight norm)",
        "copy": "weight shared with tied",
        "head": "input features 10 are not a multiple of 4",
    }


def test_the_pattern_decides_what_divides() -> None:
    found = find_eligible(Odd(), Pattern(4, 8))
    assert list(found.layers) == ["grouped", "block.0", "block.2"]
    assert ("tied", "input features 20 are not a multiple of 8") in found.skipped


@pytest.mark.parametrize("glob", ["block.*", "block", "bl*"])
def test_exclude_names_a_layer_or_its_block(glob: str) -> None:
    found = find_eligible(Odd(), Pattern(2, 4), exclude=[glob])
    assert list(found.layers) == ["grouped", "tied"]
    assert ("block.0", f"excluded by the recipe: {glob}") in found.skipped


def test_an_exclude_that_matches_nothing_names_the_nearest_layer() -> None:
    with pytest.raises(RecipeError) as caught:
        find_eligible(Odd(), Pattern(2, 4), exclude=["block.0", "grouppd"])
    message = str(caught.value)
    assert message == "prune.exclude: matches no layer; got 'grouppd'; did you mean 'grouped'?"


def test_no_eligible_layer_is_one_line_with_the_first_reasons() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, groups=6), nn.Linear(6, 2))
    with pytest.raises(PreconditionError) as caught:
        find_eligible(model, Pattern(2, 4))
    message = str(caught.value)
    assert "\n" not in message
    assert "no layer is eligible for 2:4" in message
    assert "1 (depthwise convolution)" in message
    with pytest.raises(PreconditionError, match="no Conv2d and no Linear"):
        find_eligible(nn.ReLU(), Pattern(2, 4))


def test_weight_standardisation_is_skipped() -> None:
    class StdConv2d(nn.Conv2d):
        """Named like timm's."""

    found = find_eligible(nn.Sequential(StdConv2d(8, 8, 1), nn.Linear(8, 8)), Pattern(2, 4))
    assert list(found.layers) == ["1"]
