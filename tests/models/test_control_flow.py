"""Decisions on data are found before any training; decisions on shapes and settings are none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import ModelError
from edgekd.models.control_flow import require_static_control_flow


class Decides(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 0:
            return x * 2
        return x


class Asks(nn.Module):
    """A number of the data, a hidden layer later."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        return x * float(x.abs().max())


class Shapes(nn.Module):
    """What a trace may freeze: sizes, settings, the values of its own parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] % 2 == 0 and self.training is False:
            x = x + 1
        if self.gain > 0:
            x = x * self.gain
        return x.reshape(x.shape[0], -1)


class LooksWhenItMay(nn.Module):
    """As transformers does: the check is skipped while a trace runs."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_tracing() and bool((x == 0).all()):  # type: ignore[attr-defined]
            return x
        return x + 1


@pytest.mark.parametrize(
    ("module", "source"), [(Decides(), "if x.mean() > 0:"), (Asks(), "return x * float(x.abs().max())")]
)
def test_the_line_and_the_operation_are_named(module: nn.Module, source: str) -> None:
    with pytest.raises(ModelError) as caught:
        require_static_control_flow(module.eval(), torch.randn(2, 4), "recipe: teacher")
    text = str(caught.value)
    assert "test_control_flow.py, line" in text and source in text and "\n" not in text
    assert "__bool__" in text or "__float__" in text


@pytest.mark.parametrize("module", [Shapes(), LooksWhenItMay(), nn.Sequential(nn.Linear(4, 3), nn.ReLU())])
def test_what_does_not_depend_on_the_data_passes(module: nn.Module) -> None:
    require_static_control_flow(module.eval(), torch.zeros(2, 4), "recipe: teacher")
