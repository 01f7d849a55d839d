"""Residual blocks by what they do, dropped by what they change."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.models.calls import record_calls
from edgekd.models.torchvision_shim import ensure_torchvision_ops
from edgekd.prune.depth import drop_blocks, find_blocks, rank_blocks


class Branch(nn.Module):
    def __init__(self, scale: float, act: nn.Module | None = None) -> None:
        super().__init__()
        self.layer, self.act = nn.Conv2d(8, 8, 3, padding=1), act or nn.ReLU()
        with torch.no_grad():
            self.layer.weight.mul_(scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(x + self.layer(x))


class NormLast(nn.Module):
    """As BERT's layers: the norm stands behind the sum."""

    def __init__(self, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.layer, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        y = torch.relu(self.layer(x))
        return self.norm(x + y if self.residual else y)


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(20, 8), nn.LayerNorm(8)
        self.layers = nn.ModuleList([NormLast(True), NormLast(False), NormLast(True)])
        self.head = nn.Linear(8, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.embed(ids))
        for layer in self.layers:
            x = layer(x, mask=None)
        return self.head(x.mean(1))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(Branch(1.0), Branch(0.01), Branch(3.0), Branch(0.1))
        self.plain = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.plain(self.blocks(torch.relu(self.stem(x)))).mean((2, 3)))


def test_residual_blocks_are_found_and_a_plain_layer_of_equal_shapes_is_not():
    torch.manual_seed(0)
    assert find_blocks(Net().eval(), torch.zeros(2, 3, 8, 8)) == [f"blocks.{k}" for k in range(4)]


@pytest.mark.parametrize(
    "act", [nn.SiLU(), nn.GELU(), nn.GELU("tanh"), nn.Hardswish(), nn.ReLU6(), nn.Tanh()]
)
def test_an_activation_behind_the_sum_is_no_hindrance(act):
    torch.manual_seed(0)
    net = Net().eval()
    net.blocks = nn.Sequential(*(Branch(1.0, act) for _ in range(3)), nn.Conv2d(8, 8, 1), nn.SiLU())
    found = [] if isinstance(act, nn.Tanh) else [f"blocks.{k}" for k in range(3)]
    assert find_blocks(net, torch.zeros(2, 3, 8, 8)) == found


def test_a_norm_behind_the_sum_is_no_hindrance():
    torch.manual_seed(0)
    ids = torch.arange(12).reshape(2, 6)
    net = Text().eval()
    assert find_blocks(net, ids) == ["layers.0", "layers.2"]
    drop_blocks(net, ["layers.2"])
    assert net(ids).shape == (2, 4)


def test_the_block_that_does_least_goes_first_and_leaves_nothing():
    torch.manual_seed(0)
    net = Net().eval()
    x = torch.randn(16, 3, 8, 8)
    blocks = find_blocks(net, x)
    ranked = rank_blocks(net, blocks, [x[:8], x[8:]], 3)
    assert [name for name, _ in ranked][:2] == ["blocks.1", "blocks.3"]
    changes = [change for _, change in ranked]
    assert 0 < changes[0] < changes[1] < changes[2]
    expected = net(x)
    drop_blocks(net, ["blocks.1"])
    assert not torch.equal(net(x), expected) and (net(x) - expected).abs().max() < 0.1
    before = len(record_calls(Net().eval(), x).calls)
    assert len(record_calls(net, x).calls) == before - 3  # convolution, add, relu
    assert not [name for name in net.state_dict() if name.startswith("blocks.1")]


@pytest.mark.parametrize(
    ("name", "size", "settings", "some"),
    [
        ("resnet18", 32, {}, ["layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1"]),
        ("mobilenetv2_050", 32, {}, ["blocks.1.1", "blocks.2.1", "blocks.2.2"]),
        ("vit_tiny_patch16_224", 32, {"img_size": 32, "depth": 3}, ["blocks.0", "blocks.1", "blocks.2"]),
        ("convnext_atto", 32, {}, ["stages.0.blocks.0", "stages.3.blocks.1"]),
    ],
)
def test_blocks_of_real_nets(name, size, settings, some):
    ensure_torchvision_ops()
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=4, **settings).eval()
    blocks = find_blocks(model, torch.zeros(1, 3, size, size))
    assert set(some) <= set(blocks)
    assert len(blocks) == len(some) or name in ("mobilenetv2_050", "convnext_atto")
    drop_blocks(model, blocks)
    assert model(torch.randn(2, 3, size, size)).shape == (2, 4)
