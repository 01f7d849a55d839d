"""Weight standardisation: the weight that is convolved is stored, pruned and written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.export.write import export_float, export_quantized
from edgekd.models.computed_weights import PaddedConv2d, bake_computed_weights
from edgekd.models.reparametrize import is_reparametrized, reparametrize
from edgekd.profiles.session import open_session
from edgekd.quant.qat import prepare_qat
from edgekd.quant.schemes import get_scheme


class Standardized(nn.Conv2d):
    """As timm's ``ScaledStdConv2d``; ``same`` pads as TensorFlow does, less on the left and the top."""

    same = False

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(flat, None, None, training=True, momentum=0.0).reshape_as(self.weight)
        if self.same:
            x = F.pad(x, (0, 1, 0, 1))
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Same(Standardized):
    same = True


class Dynamic(nn.Conv2d):
    """A weight that depends on what it reads cannot be stored."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * x.mean(), self.bias, self.stride, self.padding)


class Net(nn.Module):
    def __init__(self, last: type[nn.Conv2d] = Standardized) -> None:
        super().__init__()
        self.stem = Same(3, 8, 3, stride=2)
        self.blocks = nn.Sequential(Standardized(8, 8, 3, padding=1, groups=2), nn.ReLU(), last(8, 8, 1))
        self.plain, self.head = nn.Conv2d(8, 8, 1, bias=False), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.plain(self.blocks(self.stem(x).relu())).mean((2, 3)))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_the_function_stays_and_the_weight_is_the_convolved_one(images: Tensor) -> None:
    net = Net().eval()
    expected, example = net(images), torch.zeros_like(images)  # as the library gives it
    assert bake_computed_weights(net, example) == ["stem", "blocks.0", "blocks.2"]
    assert type(net.stem) is PaddedConv2d and net.stem.sides == (0, 1, 0, 1)
    assert type(net.blocks[0]) is nn.Conv2d and net.blocks[0].groups == 2
    assert torch.equal(net(images), expected)
    assert bake_computed_weights(net, example) == []


@torch.no_grad()
def test_a_weight_that_follows_the_input_is_left(images: Tensor) -> None:
    net = Net(Dynamic).eval()
    expected = net(images)
    assert bake_computed_weights(net, images) == ["stem", "blocks.0"]
    assert isinstance(net.blocks[2], Dynamic) and torch.equal(net(images), expected)


def test_files_hold_it_in_float_and_in_integers(images: Tensor, tmp_path: Path) -> None:
    net = Net().eval()
    with torch.no_grad():
        expected = net(images).numpy()
    file = export_float(net, images[:2], tmp_path / "float.onnx", opset=17)
    (found,) = open_session(file.path).run(None, {"input": images.numpy()})
    assert abs(found - expected).max() < 1e-5 and isinstance(net.stem, Same), "the caller's network stays"
    model = prepare_qat(net, images[:2], get_scheme("u8s8"))
    model.calibrate([images])
    model.set_phase("frozen")
    written = export_quantized(model.eval(), images[:2], tmp_path / "int8.onnx", opset=17)
    (found,) = open_session(written.path).run(None, {"input": images.numpy()})
    with torch.no_grad():
        assert abs(found - model(images).numpy()).max() < 0.02 * abs(expected).max()
    assert abs(found - expected).max() < 0.1 * abs(expected).max()


def test_it_is_remembered_for_a_saved_network(images: Tensor) -> None:
    net = Net().eval()
    assert reparametrize(net, images) == ["stem", "blocks.0", "blocks.2"] and is_reparametrized(net)
