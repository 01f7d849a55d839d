"""What a quantization stage hands on has the scales that its file will have."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.quant.settle import settle_scales
from edgekd.recipe_stages import AugmentRecipe, ObjectiveRecipe, PtqStage, QuantizeStage
from edgekd.stages.ptq import PostTrainingQuantize
from edgekd.stages.quantize import Quantize


class Twins(nn.Module):
    """Two equal branches: their sum has twice their scale, and every odd sum is a tie."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.left, self.right = (nn.Conv2d(channels, 8, 3) for _ in range(2))
        self.right.load_state_dict(self.left.state_dict())
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((self.left(x) + self.right(x)).mean((2, 3)))


@pytest.mark.parametrize("trained", [False, True])
def test_the_stages_settle_scales(context, trained: bool) -> None:
    torch.manual_seed(0)
    net = Twins(context.example.shape[1])
    objectives = {"kd": ObjectiveRecipe(temperature=2)}
    if trained:
        recipe = QuantizeStage(
            epochs=1, batch_size=64, lr=1e-9, objectives=objectives, augment=AugmentRecipe(hflip=0.0)
        )
        stage: Quantize | PostTrainingQuantize = Quantize(recipe)
    else:
        stage = PostTrainingQuantize(PtqStage(calibration_samples=64))
    outcome = stage.apply(net.train(), context)
    assert settle_scales(outcome.model, context.example).narrowed == 0
