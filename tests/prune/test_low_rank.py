"""Two thin layers: the best product of their rank, where it is fewer numbers, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.errors import RecipeError
from edgekd.models.thin import split_layer
from edgekd.prune.low_rank import plan_ranks, split_layers

EXAMPLE = torch.zeros(2, 8, 6, 6)


class Reads(nn.Module):
    """Asks a layer for its weight instead of calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.layer.weight.T


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(8, 32, 3)
        self.point = nn.Conv2d(32, 32, 1, stride=2)
        self.grouped = nn.Conv2d(32, 32, 1, groups=2)
        self.reads = Reads()
        self.narrow = nn.Linear(32, 8)
        self.wide = nn.Linear(8, 32)
        self.head = nn.Linear(32, 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.grouped(torch.relu(self.point(torch.relu(self.spatial(x))))).mean((2, 3))
        return self.head(torch.relu(self.wide(torch.relu(self.narrow(self.reads(y))))))


def test_the_product_is_the_nearest_of_its_rank():
    torch.manual_seed(0)
    layer = nn.Linear(20, 30)
    thin = split_layer(layer, 5)
    values = torch.linalg.svdvals(layer.weight.detach())
    error = torch.linalg.norm(thin[1].weight @ thin[0].weight - layer.weight).detach()
    assert float(error) == pytest.approx(float(values[5:].square().sum().sqrt()), rel=1e-4)
    whole = split_layer(layer, 20)
    x = torch.randn(3, 20)
    assert (whole(x) - layer(x)).abs().max() < 1e-5
    point = nn.Conv2d(12, 16, 1, stride=2, padding=1)
    y = torch.randn(2, 12, 7, 7)
    assert (split_layer(point, 12)(y) - point(y)).abs().max() < 1e-5


def test_ranks_follow_the_compression_and_heads_stay():
    torch.manual_seed(0)
    net = Net().eval()
    ranks, skipped = plan_ranks(net, EXAMPLE, 2.0)
    assert ranks == {"point": 8, "wide": 3}
    reasons = dict(skipped)
    assert reasons["head"] == "it answers for the model" and reasons["narrow"] == "8 outputs"
    assert "weight" in reasons["reads.layer"]
    assert "spatial" not in reasons and "grouped" not in reasons
    split_layers(net, ranks)
    assert net(EXAMPLE).shape == (2, 20)
    assert sum(p.numel() for p in net.point.parameters()) <= 32 * 32 // 2 + 32


def test_an_excluded_layer_and_a_wrong_name():
    torch.manual_seed(0)
    net = Net().eval()
    assert "point" not in plan_ranks(net, EXAMPLE, 2.0, exclude=["point"])[0]
    with pytest.raises(RecipeError, match="matches no layer; got 'pont'; did you mean 'point'"):
        plan_ranks(net, EXAMPLE, 2.0, exclude=["pont"])
