"""Single convolutions whose way to float and back pays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekd.models.calls import record_calls
from edgekd.quant.islands import cheaper_alone


class Mixed(nn.Module):
    """A convolution between convolutions, and one between a sum of integers and a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.between, self.last = (nn.Conv2d(k, 8, 3, padding=1) for k in (3, 8, 8))
        self.wide = nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.norm, self.up = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(torch.relu(self.between(torch.relu(self.stem(x)))))
        return self.up(self.norm(self.wide(x).permute(0, 2, 3, 1))).mean((1, 2))


@pytest.fixture(scope="module")
def graph() -> object:
    return record_calls(Mixed().eval(), torch.randn(2, 3, 40, 40))


def test_the_way_there_and_back_is_added(graph: object) -> None:
    # 8 x 40 x 40 = 12,800 elements, to float and back: (0.15 + 0.40 + 0.24 + 0.40) ns each, 15.2 us.
    found = cheaper_alone(graph, {"between": (40.0, 10.0)})  # type: ignore[arg-type]
    assert found["between"] == (40.0, pytest.approx(25.23, abs=0.01))
    assert cheaper_alone(graph, {"between": (31.0, 10.0)}) == {}, "less than a quarter"  # type: ignore[arg-type]
    assert cheaper_alone(graph, {"wide": (9.0, 0.1)}) == {}, "within the noise"  # type: ignore[arg-type]


def test_a_layer_norm_behind_reads_float_anyway(graph: object) -> None:
    # Only in front are integers: (0.15 + 0.40) ns; behind, order is restored and a conversion saved.
    found = cheaper_alone(graph, {"wide": (31.0, 10.0)})  # type: ignore[arg-type]
    assert found["wide"] == (31.0, pytest.approx(18.06, abs=0.01))


def test_unknown_layers_and_linear_ones_stay(graph: object) -> None:
    assert cheaper_alone(graph, {"up": (100.0, 1.0), "nothing": (100.0, 1.0)}) == {}  # type: ignore[arg-type]
