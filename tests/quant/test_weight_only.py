"""Weights in blocks: what each algorithm is for, on layers where the right answer is known; and the file's bytes."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.errors import RecipeError
from edgekd.export.nbits import OPERATOR, pack, pack_zeros, unpack
from edgekd.export.parity import parity_of_file
from edgekd.export.weights import stored_weights
from edgekd.export.write import export_weight_only
from edgekd.quant.weight_blocks import BlockFakeQuant, reserve, weight_blocks
from edgekd.quant.weight_only import linear_layers, quantize_weights


class Tokens(nn.Module):
    """``(batch, 3, 8, 8)`` to 5 logits: layer norms, two readers of one norm, a narrow layer, no bias once."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 80)
        self.norm1, self.norm2 = nn.LayerNorm(80), nn.LayerNorm(80)
        self.q, self.k = nn.Linear(80, 80, bias=False), nn.Linear(80, 80)
        self.up, self.down = nn.Linear(80, 160), nn.Linear(160, 80)
        self.head = nn.Linear(80, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(2).transpose(1, 2))
        y = self.norm1(x)
        x = x + F.softmax(self.q(y) @ self.k(y).transpose(1, 2) / 9, -1) @ x
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(x.mean(1))


@pytest.fixture
def net() -> nn.Module:
    """Its norms give a few channels large values, as trained language models' do."""
    torch.manual_seed(0)
    model = Tokens().eval()
    with torch.no_grad():
        for norm in (model.norm1, model.norm2):
            norm.weight.uniform_(0.1, 0.3)
            norm.weight[::10] = 6
    return model


@pytest.fixture
def images() -> Tensor:
    return torch.randn(48, 3, 8, 8, generator=torch.Generator().manual_seed(1))


LAYERS = ["q", "k", "up", "down", "head"]


def rounded(net: nn.Module, images: Tensor, **settings) -> nn.Module:
    model = copy.deepcopy(net)
    settings = {"bits": 4, "group_size": 32, "algorithm": "rtn", **settings}
    quantize_weights(model, LAYERS, images[:32].split(8), images[:2], **settings)
    return model


@torch.no_grad()
def error(net: nn.Module, other: nn.Module, images: Tensor) -> float:
    """Of samples that calibration did not see."""
    return float((other(images[32:]) - net(images[32:])).square().mean())


def test_layers_are_found_in_the_order_of_execution(net, images) -> None:
    found, left = linear_layers(net, images[:2], 32, ["dow*"])
    assert found == ["q", "k", "up", "head"]
    assert left == {"stem": "3 inputs are less than one block of 32", "down": "excluded by the recipe: dow*"}
    with pytest.raises(RecipeError, match="did you mean 'down'"):
        linear_layers(net, images[:2], 32, ["dwn"])


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_every_weight_is_within_half_a_step(net, images, bits, symmetric) -> None:
    model = rounded(net, images, bits=bits, symmetric=symmetric)
    for name in LAYERS:
        before, after = (each.get_submodule(name).weight.detach() for each in (net, model))
        blocks = weight_blocks(model)[name]
        steps = blocks.scale.repeat_interleave(32, 1)[:, : before.shape[1]]
        assert ((before - after).abs() <= 0.5001 * steps).all()
        spread = steps * (2**bits - 1)
        assert (spread <= 2.3 * before.abs().max()).all(), "a step is not wider than it must be"
        assert int(blocks.integers.max()) < 2**bits
        assert (blocks.zero == 2 ** (bits - 1)).all().item() is symmetric


def test_gptq_and_awq_lose_less_than_rounding(net, images) -> None:
    plain = error(net, rounded(net, images), images)
    assert error(net, rounded(net, images, algorithm="gptq"), images) < 0.7 * plain
    assert error(net, rounded(net, images, algorithm="awq"), images) < 0.7 * plain


def test_awq_searches_in_the_bits_that_were_asked_for(net, images) -> None:
    plain, awq = (rounded(net, images, bits=8, algorithm=name) for name in ("rtn", "awq"))
    assert error(net, awq, images) <= error(net, plain, images)


def test_a_saved_state_fills_a_reserved_structure(net, images) -> None:
    model = rounded(net, images, algorithm="gptq")
    other = copy.deepcopy(net)
    for name in LAYERS:
        reserve(other.get_submodule(name), bits=4, size=32)
    other.load_state_dict(model.state_dict())
    for name, blocks in weight_blocks(model).items():
        again = weight_blocks(other)[name]
        assert torch.equal(blocks.integers, again.integers) and torch.equal(blocks.values(), again.values())


def test_a_zero_stays_a_zero(net) -> None:
    """What a mask before it left out: with zero points too, since every block's range holds 0."""
    room = BlockFakeQuant(2, 40, bits=4, size=16)
    room.scale.fill_(0.013)
    room.zero.fill_(7)
    weight = torch.linspace(-0.09, 0.1, 80).reshape(2, 40)
    weight[:, ::3] = 0
    assert (room(weight)[:, ::3] == 0).all() and (room(weight) != 0).sum() > 40


def test_packing_and_back() -> None:
    random = np.random.default_rng(0)
    for bits, size, width in ((4, 16, 40), (4, 32, 64), (8, 16, 40)):
        integers = random.integers(0, 2**bits, (3, width), dtype=np.uint8)
        packed = pack(integers, bits, size, np.full(3, 5, np.uint8))
        assert packed.shape == (3, -(-width // size), size * bits // 8)
        whole = unpack(packed, bits).reshape(3, -1)
        assert (whole[:, :width] == integers).all() and (whole[:, width:] == 5).all()
        zeros = random.integers(0, 2**bits, (3, 3), dtype=np.uint8)
        assert (unpack(pack_zeros(zeros, bits), bits)[:, :3] == zeros).all()
    assert pack(np.array([[1, 2]], np.uint8), 4, 2, np.zeros(1, np.uint8)).tolist() == [[[0x21]]]


@pytest.mark.parametrize(("bits", "symmetric"), [(4, False), (4, True), (8, False)])
def test_the_file_computes_what_torch_does(net, images, tmp_path, bits, symmetric) -> None:
    """80 inputs in blocks of 32: the last block is short. With float products there is nothing to round."""
    model = rounded(net, images, bits=bits, symmetric=symmetric)
    path = tmp_path / "model.onnx"
    export_weight_only(model, images, path, opset=20, products="float")
    found = parity_of_file(path, lambda x: model(torch.from_numpy(x)).detach().numpy(), images.numpy())
    assert found.max_abs_diff < 1e-5
    proto = onnx.load(path)
    products = [node for node in proto.graph.node if node.op_type == OPERATOR]
    assert len(products) == 5 and not any(
        node.op_type == "Add" and "head" in node.name for node in proto.graph.node
    )
    stored = {weight.layer: weight for weight in stored_weights(proto)}
    for name, blocks in weight_blocks(model).items():
        scale = blocks.scale.repeat_interleave(32, 1)[:, : blocks.integers.shape[1]].numpy()
        assert np.array_equal(stored[name].values * scale, blocks.values().numpy())


def test_products_in_eight_bits_stay_close(net, images, tmp_path) -> None:
    model = rounded(net, images)
    path = tmp_path / "model.onnx"
    export_weight_only(model, images, path, opset=20)
    found = parity_of_file(path, lambda x: model(torch.from_numpy(x)).detach().numpy(), images.numpy())
    spread = float(model(images).detach().std())
    assert 1e-5 < found.max_abs_diff < 0.1 * spread
