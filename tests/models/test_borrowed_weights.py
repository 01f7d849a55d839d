"""A linear layer whose weight the module above multiplies with is called, so that it can be pruned and quantized."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.export.coverage import check_coverage
from edgekd.export.write import export_quantized
from edgekd.models.borrowed_weights import call_borrowed_layers
from edgekd.models.reparametrize import reparametrize
from edgekd.profiles.session import open_session
from edgekd.prune.apply import prune
from edgekd.quant.exact import ExactTwin
from edgekd.quant.qat import prepare_qat
from edgekd.quant.schemes import get_scheme


class Attention(nn.Module):
    """As BEiT: the key has no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48, bias=False), nn.Linear(16, 16)
        self.q_bias, self.v_bias = nn.Parameter(torch.randn(16)), nn.Parameter(torch.randn(16))
        self.gain = nn.Parameter(torch.full((16,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.multiplied(x).chunk(3, -1)
        return x + self.gain * self.out(F.scaled_dot_product_attention(q, k, v))

    def multiplied(self, x: Tensor) -> Tensor:
        return F.linear(x, self.qkv.weight, torch.cat([self.q_bias, torch.zeros(16), self.v_bias]))


class ByInput(Attention):
    def multiplied(self, x: Tensor) -> Tensor:
        return F.linear(x, self.qkv.weight, x.mean((0, 1)).repeat(3))


class Twice(Attention):
    def multiplied(self, x: Tensor) -> Tensor:
        return F.linear(x, self.qkv.weight) + F.linear(x.flip(1), self.qkv.weight)


class Net(nn.Module):
    def __init__(self, kind: type[nn.Module] = Attention) -> None:
        super().__init__()
        self.patch, self.blocks, self.head = (
            nn.Conv2d(4, 16, 4, 4),
            nn.Sequential(kind(), kind()),
            nn.Linear(16, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(3))


LAYERS = ["blocks.0.qkv", "blocks.1.qkv"]


def test_it_is_called_with_the_bias_that_was_handed_over(images: Tensor) -> None:
    torch.manual_seed(0)
    net = Net().eval()
    with torch.no_grad():
        expected = net(images)
        assert call_borrowed_layers(net, images) == LAYERS
        torch.testing.assert_close(net(images), expected)
        first = net.blocks[0]
        torch.testing.assert_close(first.qkv.bias, torch.cat([first.q_bias, torch.zeros(16), first.v_bias]))
        again = copy.deepcopy(net)
        again.blocks[0].qkv.weight.zero_()
        assert not torch.allclose(again(images), expected) and torch.allclose(net(images), expected)
        assert call_borrowed_layers(net, images) == [], "they are called already"
    net(images).sum().backward()
    assert first.qkv.bias.grad is not None and first.gain.grad is not None
    waiting = [name for name, part in net.named_parameters() if part.requires_grad and part.grad is None]
    assert waiting == [], "nothing waits for a gradient that never comes"


@torch.no_grad()
@pytest.mark.parametrize("kind", [ByInput, Twice])
def test_what_one_call_is_not_stays(kind: type[nn.Module], images: Tensor) -> None:
    torch.manual_seed(0)
    net = Net(kind).eval()
    expected = net(images)
    assert call_borrowed_layers(net, images) == [] and type(net.blocks[0]) is kind
    assert torch.equal(net(images), expected) and net.blocks[0].qkv.bias is None


@torch.no_grad()
def test_it_is_pruned_quantized_and_written(images: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Net().eval()
    assert reparametrize(net, images) == LAYERS
    assert set(LAYERS) <= set(prune(net, "2:4").layers)
    quantized = prepare_qat(net, images, get_scheme("u8s8"))
    quantized.calibrate([images])
    export_quantized(quantized, images, tmp_path / "int8.onnx", opset=17)
    assert check_coverage(tmp_path / "int8.onnx").mac_coverage == 1.0
    (written,) = open_session(tmp_path / "int8.onnx").run(None, {"input": images.numpy()})
    np.testing.assert_allclose(written, ExactTwin(quantized, images)(images).numpy(), atol=1e-6)
