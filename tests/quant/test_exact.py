"""The arithmetic of ONNX Runtime's kernels, bit for bit: single kernels over all pairs of bytes, then a whole net."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.export.parity import parity_of_file
from edgekd.export.write import export_quantized
from edgekd.quant.exact import ExactTwin
from edgekd.quant.qat import QuantizedModel, prepare_qat
from edgekd.quant.schemes import SCHEMES


class Pair(nn.Module):
    """Two inputs of one byte each, as two channels of a picture, combined."""

    def __init__(self, product: bool) -> None:
        super().__init__()
        self.product = product
        self.left, self.right = (nn.Conv2d(2, 1, 1, bias=False) for _ in range(2))
        self.last = nn.Conv2d(1, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.left(x), self.right(x)
        return self.last(a * b if self.product else a + b).flatten(1)


class Net(nn.Module):
    """A residual net with everything that has an exact kernel: depthwise, clips, gates, pooling, a wide layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, stride=2, padding=1)
        self.depth = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.point = nn.Conv2d(24, 24, 1)
        self.squeeze, self.excite = nn.Conv2d(24, 8, 1), nn.Conv2d(8, 24, 1)
        self.wide = nn.Conv2d(24, 1200, 1)
        self.narrow = nn.Conv2d(1200, 32, 3, padding=1)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = F.hardswish(self.point(F.relu6(self.depth(x))))
        y = y * F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        x = self.narrow(F.relu(self.wide(x + y)))
        return self.head(x.mean((2, 3)))


def quantized(net: nn.Module, x: Tensor) -> QuantizedModel:
    model = prepare_qat(net.eval(), x[:2], SCHEMES["u8s8"], style="full").eval()
    model.calibrate(x.split(16))
    model.set_phase("frozen")
    return model


def all_pairs() -> Tensor:
    """``(1, 2, 256, 256)``: every pair of two bytes."""
    a, b = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    return torch.stack([a, b])[None]


@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_sums_and_products_of_all_pairs_of_bytes(product: bool, seed: int, tmp_path) -> None:
    torch.manual_seed(seed)
    x = all_pairs()
    net = Pair(product)
    with torch.no_grad():
        for conv, picks in ((net.left, (1.0, 0.0)), (net.right, (0.0, 1.0))):
            conv.weight.copy_(torch.tensor(picks).reshape(1, 2, 1, 1) * torch.empty(1).uniform_(0.3, 3))
        net.last.weight.fill_(1.0)
    # Values on both sides of zero, so that zero points are somewhere in the middle; now and then equal scales.
    x = x - float(torch.randint(0, 256, ()))
    if seed % 3 == 0:
        with torch.no_grad():
            net.right.weight.copy_(net.left.weight.flip(1))
    model = quantized(net, x.repeat(2, 1, 1, 1))
    path = tmp_path / "model.onnx"
    export_quantized(model, x, path, opset=17)
    found = parity_of_file(
        path, lambda given: ExactTwin(model, x)(torch.from_numpy(given)).numpy(), x.numpy()
    )
    assert found.max_abs_diff == 0


def test_a_whole_net_is_the_file_to_the_last_bit(tmp_path) -> None:
    """Sums behind 10,800 products leave float32's integers, and fake-quant leaves the file's steps."""
    torch.manual_seed(0)
    x = torch.randn(64, 3, 32, 32)
    model = quantized(Net(), x[:32])
    path = tmp_path / "model.onnx"
    export_quantized(model, x, path, opset=17)
    twin = ExactTwin(model, x[:2])
    exact = parity_of_file(path, lambda given: twin(torch.from_numpy(given)).numpy(), x.numpy())
    assert exact.max_abs_diff == 0 and exact.agreement == 1
    rounded = parity_of_file(path, lambda given: model(torch.from_numpy(given)).detach().numpy(), x.numpy())
    assert rounded.max_abs_diff > 0, "else there would be nothing to mend"


@torch.no_grad()
@pytest.mark.parametrize("gain", [1e-12, 5e-6])
def test_so_is_one_with_channels_whose_bias_needs_a_larger_weight_scale(gain: float, tmp_path) -> None:
    """Trained networks have channels that are dead or nearly so, EfficientNet-Lite0 of ImageNet for one."""
    torch.manual_seed(0)
    x = torch.randn(128, 3, 32, 32)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten())
    for layer in (net[0], net[2]):
        layer.weight[::4] *= gain
        layer.bias[::4] = 1.0
    model = quantized(net, x[:32])
    notes = export_quantized(model, x, tmp_path / "model.onnx", opset=17).notes
    assert "nearly dead channels in 2 layers" in notes[0]
    twin = ExactTwin(model, x[:2])
    exact = parity_of_file(
        tmp_path / "model.onnx", lambda given: twin(torch.from_numpy(given)).numpy(), x.numpy()
    )
    assert exact.max_abs_diff == 0


def test_the_model_itself_stays_as_it_was() -> None:
    x = torch.randn(4, 3, 32, 32)
    model = quantized(Net(), x)
    before, state = model(x), {key: value.clone() for key, value in model.state_dict().items()}
    ExactTwin(model, x[:2])(x)
    assert torch.equal(model(x), before)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_large_sums_are_exact() -> None:
    """Against ONNX Runtime's own convolution of integers, where single sums pass 2**24."""
    from edgekd.quant.exact_products import exact_products

    random = np.random.default_rng(0)
    x = random.integers(0, 256, (1, 900, 4, 4)).astype(np.float32)
    weight = random.integers(60, 128, (3, 900, 3, 3)).astype(np.float32)
    total = exact_products(F.conv2d, torch.from_numpy(x), torch.from_numpy(weight)).numpy()
    node = helper.make_node("ConvInteger", ["x", "w"], ["y"])
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.UINT8, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.INT32, None)],
        [numpy_helper.from_array(weight.astype(np.uint8), "w")],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    assert (total == session.run(None, {"x": x.astype(np.uint8)})[0]).all() and total.max() > 2**24
