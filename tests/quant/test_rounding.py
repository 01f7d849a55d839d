"""GPTQ for int8 layers: on the grid, zeros kept, closer to the float network than nearest rounding."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgekd.models.layer_calls import see_inputs
from edgekd.quant.partial import quantized_layers
from edgekd.quant.qat import QuantizedModel, prepare_qat
from edgekd.quant.rounding import put_weights, round_columns, solved_weights
from edgekd.quant.schemes import get_scheme


def correlated(samples: int, size: int) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(samples, 4) @ torch.randn(4, size) + 0.1 * torch.randn(samples, size)


def nearest(weight: Tensor, scale: Tensor, largest: int) -> Tensor:
    return (weight / scale[..., None]).round().clamp(-largest, largest) * scale[..., None]


@pytest.mark.parametrize("size", [9, 300])  # within a block of columns, and over several
def test_errors_cancel_in_the_output(size: int) -> None:
    x = correlated(2000, size)
    weight = torch.randn(1, 6, size)
    weight[:, :, ::5] = 0  # a mask's
    scale = weight.abs().amax(2) / 7
    found = round_columns(weight, scale, (x.T @ x)[None], 7)
    integers = found / scale[..., None]
    assert torch.allclose(integers, integers.round(), atol=1e-4) and integers.abs().max() < 7.001
    assert (found[weight == 0] == 0).all()
    top = weight.abs().argmax(2, keepdim=True)
    assert torch.equal(found.gather(2, top), weight.gather(2, top)), "it gives the scale"
    lost, lost_nearest = (
        (x @ (each - weight)[0].T).square().mean() for each in (found, nearest(weight, scale, 7))
    )
    assert lost < 0.35 * lost_nearest


def test_inputs_that_have_nothing_in_common_are_rounded_to_nearest() -> None:
    weight = torch.randn(2, 3, 8)
    scale = weight.abs().amax(2) / 7
    found = round_columns(weight, scale, torch.eye(8).expand(2, 8, 8), 7)
    assert torch.allclose(found, nearest(weight, scale, 7), atol=1e-6)


def test_a_group_that_reads_only_zeros_has_an_answer() -> None:
    found = round_columns(torch.randn(1, 3, 8), torch.ones(1, 3), torch.zeros(1, 8, 8), 127)
    assert torch.isfinite(found).all()


class Net(nn.Module):
    """One layer of each kind: dense, strided, grouped, depthwise, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 16, 3, stride=2, groups=2, dilation=2, padding=2)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.stem, self.grouped, self.depthwise):
            x = layer(x).relu()
        return self.head(x.mean((2, 3)))


class Mask(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * (torch.arange(weight.numel()).reshape(weight.shape) % 3 > 0)


@pytest.fixture
def images() -> Tensor:
    from sklearn.datasets import load_digits

    return torch.from_numpy(load_digits().images[:96]).float()[:, None] / 16


@pytest.fixture
def net(images: Tensor) -> QuantizedModel:
    torch.manual_seed(1)
    inner = Net().eval()
    parametrize.register_parametrization(inner.grouped, "weight", Mask())
    model = prepare_qat(inner, images[:2], get_scheme("u8s8"), weight_bits=4).eval()
    model.calibrate([images])
    model.set_phase("frozen")
    return model.eval()


@torch.no_grad()
def test_every_kind_of_layer_answers_closer_to_itself_in_float(net: QuantizedModel, images: Tensor) -> None:
    solved = solved_weights(net, [images[:32], images[32:64]])
    assert solved.keys() == set(quantized_layers(net)) == {"stem", "grouped", "depthwise", "head"}
    read: dict[str, Tensor] = {}
    net.set_phase("off")
    see_inputs(net.model, [images[64:]], {name: partial(read.__setitem__, name) for name in solved})
    for name, weight in solved.items():
        layer = net.model.get_submodule(name)
        net.set_phase("off")
        wanted = layer(read[name])
        net.set_phase("frozen")
        lost_nearest = (layer(read[name]) - wanted).square().mean()
        before = put_weights(net, {name: weight})
        lost = (layer(read[name]) - wanted).square().mean()
        put_weights(net, before)
        # Nine pixels of a drawing have less in common than the channels behind it.
        assert lost < (1.05 if name == "stem" else 0.7) * lost_nearest, name
    put_weights(net, solved)
    assert (net.model.grouped.weight[~Mask()(torch.ones(16, 4, 3, 3)).bool()] == 0).all()


class Same(nn.Conv2d):
    """Pads in its own way, as TensorFlow's SAME."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(
            nn.functional.pad(x, (2, 2, 2, 2)), self.weight, self.bias, self.stride, groups=self.groups
        )


@pytest.mark.parametrize("kind", ["same", "circular"])
def test_a_layer_that_pads_by_itself_is_seen_as_it_computes(images: Tensor, kind: str) -> None:
    """Four pixels and a kernel of five: without the padding there is nothing to see."""
    found = []
    small = images[:, :, ::2, ::2]
    for padded in (False, True):
        torch.manual_seed(0)
        if kind == "same":
            layer = Same(1, 8, 5) if padded else nn.Conv2d(1, 8, 5, padding=2)
            x = small
        else:
            layer = nn.Conv2d(
                1, 8, 5, padding=2 if padded else 0, padding_mode="circular" if padded else "zeros"
            )
            x = small if padded else nn.functional.pad(small, (2, 2, 2, 2), mode="circular")
        inner = nn.Sequential(layer, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()
        model = prepare_qat(inner, x[:2], get_scheme("u8s8"), weight_bits=4).eval()
        model.calibrate([x])
        found.append(solved_weights(model, [x]))
    for name in ("0", "4"):
        assert torch.allclose(found[0][name], found[1][name], atol=1e-6), name


@torch.no_grad()
def test_solving_changes_nothing(net: QuantizedModel, images: Tensor) -> None:
    before = net(images)
    solved = solved_weights(net, [images])
    assert torch.equal(net(images), before)
    old = put_weights(net, solved)
    assert not torch.equal(net(images), before)
    put_weights(net, old)
    assert torch.equal(net(images), before)


@torch.no_grad()
def test_the_simulation_leaves_what_is_on_the_grid(net: QuantizedModel, images: Tensor) -> None:
    solved = solved_weights(net, [images])
    put_weights(net, solved)
    net.set_phase("frozen")
    for name, weight in solved.items():
        assert torch.allclose(net.model.get_submodule(name).weight, weight, atol=1e-6)
