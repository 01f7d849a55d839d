"""Which mixtures of integers and float are measured."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekd.mixtures import BLOCKS, BOTH, LAYERS, MOST, mixtures
from edgekd.profiles import OperatorCost
from edgekd.quant.partial import quantized_layers
from edgekd.quant.qat import QuantizedModel, prepare_qat
from edgekd.quant.schemes import get_scheme


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(8, 8, 7, padding=3, groups=8)) for _ in range(3))
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(torch.relu(self.stem(x))).mean((2, 3)))


@pytest.fixture(scope="module")
def model() -> QuantizedModel:
    torch.manual_seed(0)
    made = prepare_qat(Net().eval(), torch.zeros(2, 3, 16, 16), get_scheme("u8s8"))
    made.calibrate([torch.randn(8, 3, 16, 16)])
    return made


def cost(kind: str, layer: str, us: float, position: int) -> OperatorCost:
    return OperatorCost(kind, f"{layer}/Conv_token_1", us, 0.0, position, layers=(layer,))


def costs(**us: float) -> list[OperatorCost]:
    return [cost("Conv", name.replace("_", "."), value, k) for k, (name, value) in enumerate(us.items())]


FLOAT = costs(stem=50.0, blocks_0_0=20.0, blocks_1_0=20.0, blocks_2_0=20.0)


def names(model: QuantizedModel, int8: list[OperatorCost]) -> dict[str, list[str]]:
    x = torch.zeros(2, 3, 16, 16)
    found = mixtures(model, x, quantized_layers(model), int8, FLOAT)
    return {mixture.name: list(mixture.reasons) for mixture in found}


def test_nothing_slow_is_nothing_to_measure(model: QuantizedModel) -> None:
    assert names(model, costs(stem=20.0, blocks_0_0=15.0, blocks_1_0=15.0, blocks_2_0=15.0)) == {}


def test_a_slow_convolution_is_tried_alone_and_a_slow_block_as_a_block(model: QuantizedModel) -> None:
    # The stem's block is slower by less than a convolution's way to float costs; a block is the path up to its number.
    found = names(model, costs(stem=58.0, blocks_0_0=15.0, blocks_1_0=90.0, blocks_2_0=15.0))
    assert found == {LAYERS: ["blocks.1.0"], BLOCKS: ["stem", "blocks.1.0"]}


def test_a_block_between_two_that_lose_goes_with_them(model: QuantizedModel) -> None:
    # 1 us faster in integers, for two changes of type.
    found = mixtures(
        model, torch.zeros(2, 3, 16, 16), quantized_layers(model),
        costs(stem=70.0, blocks_0_0=19.0, blocks_1_0=90.0, blocks_2_0=15.0), FLOAT, alone=False,
    )  # fmt: skip
    assert [(each.name, each.blocks) for each in found] == [
        (MOST, ("stem", "blocks.1")), (BLOCKS, ("stem", "blocks.0", "blocks.1"))
    ]  # fmt: skip
    assert "beside blocks that float is faster in" in found[1].reasons["blocks.0.0"]


def test_blocks_that_lose_little_are_tried_last(model: QuantizedModel) -> None:
    # 51 against 50 us is noise for the profiler, and may be a conversion less before the slow block.
    found = names(model, costs(stem=51.0, blocks_0_0=15.0, blocks_1_0=90.0, blocks_2_0=15.0))
    assert found == {LAYERS: ["blocks.1.0"], MOST: ["blocks.1.0", "stem"]}


def test_both_are_tried_where_they_differ(model: QuantizedModel) -> None:
    # As a block it is 100 against 100 us; as a convolution alone 100 against 20.
    int8 = [*costs(stem=60.0, blocks_0_0=100.0, blocks_1_0=15.0, blocks_2_0=15.0)]
    fp32 = [*FLOAT, OperatorCost("Gelu", "blocks.0/Gelu", 80.0, 0.0, 9)]
    x = torch.zeros(2, 3, 16, 16)
    found = mixtures(model, x, quantized_layers(model), int8, fp32)
    assert [(each.name, sorted(each.reasons)) for each in found] == [
        (LAYERS, ["blocks.0.0"]), (BLOCKS, ["stem"]), (BOTH, ["blocks.0.0", "stem"])
    ]  # fmt: skip
    assert found[0].blocks == () and found[2].blocks == ("stem",)
    assert "100 us in integers, 2" in found[0].reasons["blocks.0.0"]
