"""Graph passes keep the function, and take away what the integer kernels would stumble over."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.export.compact import layer_of, share_initializers, tidy
from edgekd.export.constants import fold_constants
from edgekd.export.coverage import check_coverage
from edgekd.export.graph import Graph, drop_unused
from edgekd.export.pads import absorb_pads
from edgekd.export.write import export_float, export_quantized
from edgekd.models.torchvision_shim import ensure_torchvision_ops
from edgekd.profiles.session import open_session
from edgekd.quant.qat import prepare_qat
from edgekd.quant.schemes import SCHEMES


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(str(path)).graph.node)


class SamePadding(nn.Module):
    """TensorFlow's "same", as timm and efficientnet_lite_pytorch do it: by a module, and from sizes."""

    def __init__(self) -> None:
        super().__init__()
        ensure_torchvision_ops()
        from timm.layers import Conv2dSame

        self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.first = nn.Conv2d(3, 8, 3, stride=2)
        self.second = Conv2dSame(8, 8, 3, stride=2)
        self.third = Conv2dSame(8, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(self.pad(x)))
        return self.head(self.third(torch.relu(self.second(x))).mean((2, 3)))


def test_padding_moves_into_the_convolution(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 30, 30)
    net = SamePadding().eval()
    float_file = export_float(net, x, tmp_path / "f.onnx", opset=17)
    assert operators(float_file.path) == {
        "Conv": 3, "Relu": 2, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1,
    }  # fmt: skip
    with torch.no_grad():
        expected = net(x).numpy()
    written = open_session(float_file.path).run(None, {"input": x.numpy()})[0]
    np.testing.assert_allclose(written, expected, rtol=1e-4, atol=1e-5)
    model = prepare_qat(net, x, SCHEMES["u8s8"])
    model.calibrate([x])
    model.set_phase("frozen")
    file = export_quantized(model.eval(), x, tmp_path / "q.onnx", opset=17)
    assert operators(file.path)["Pad"] == 0
    report = check_coverage(file.path)
    assert (report.coverage, report.leftover_qdq) == (1.0, 0)
    step = max(q.numbers()[0] for q in model.activation_quantizers()[1:])
    with torch.no_grad():
        written = open_session(file.path).run(None, {"input": x.numpy()})[0]
        assert np.abs(written - model(x).numpy()).max() <= 2 * step


@pytest.mark.parametrize("value", [0.5, 0.0])
def test_only_zeros_are_absorbed(value: float, tmp_path: Path) -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(F.pad(x, (1, 2, 3, 0), value=value)).flatten(1)

    net, x = Padded().eval(), torch.randn(2, 3, 8, 9)
    file = export_float(net, x, tmp_path / "f.onnx", opset=17)
    assert operators(file.path)["Pad"] == (0 if value == 0.0 else 1)
    with torch.no_grad():
        written = open_session(file.path).run(None, {"input": x.numpy()})[0]
        np.testing.assert_allclose(written, net(x).numpy(), rtol=1e-4, atol=1e-5)


def test_padding_that_others_read_too_stays() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.pad(x, (1, 1, 1, 1))
            return (self.conv(x) + x).flatten(1)

    proto = _traced(Fork(), torch.randn(2, 3, 8, 8))
    fold_constants(proto)
    assert absorb_pads(proto) == 0


def _traced(module: nn.Module, x: Tensor) -> onnx.ModelProto:
    import tempfile

    from edgekd.export.trace import trace_to_onnx

    with tempfile.TemporaryDirectory() as folder:
        return trace_to_onnx(module.eval(), x, Path(folder) / "m.onnx", opset=17)


def test_shape_arithmetic_is_evaluated_but_for_the_batch() -> None:
    class View(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(x.shape[0], x.shape[1] * x.shape[2], x.shape[3]).flatten(1)

    proto = _traced(View(), torch.randn(2, 3, 4, 5))
    before = Counter(node.op_type for node in proto.graph.node)
    fold_constants(proto)
    after = Counter(node.op_type for node in proto.graph.node)
    assert before["Gather"] == 4 and after["Gather"] == 1 and after["Mul"] == 0
    drop_unused(proto)
    onnx.checker.check_model(proto, full_check=True)


def test_arithmetic_on_sizes_does_not_move_the_quantization(tmp_path: Path) -> None:
    """While torch traces, ``x.shape[2] * 2`` is a tensor operation; it must not count as the first product."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
            self.last = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            size = x.shape[2] * 2 + x.shape[3] * 3
            product = self.left(x) * self.right(x)
            return self.last(product).flatten(1)[:, :size]

    torch.manual_seed(0)
    x = torch.randn(4, 3, 8, 8)
    model = prepare_qat(Gated().eval(), x, SCHEMES["u8s8"])
    model.calibrate([x])
    model.set_phase("frozen")
    file = export_quantized(model.eval(), x, tmp_path / "q.onnx", opset=17)
    report = check_coverage(file.path)
    assert report.coverage == 1.0 and operators(file.path)["QuantizeLinear"] == len(model.placement.points)


def test_constant_folding_leaves_quantized_weights_alone(tmp_path: Path) -> None:
    x = torch.randn(4, 3, 8, 8)
    model = prepare_qat(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).eval(), x, SCHEMES["u8s8"])
    model.calibrate([x])
    file = export_quantized(model.eval(), x, tmp_path / "q.onnx", opset=17)
    types = {t.name: t.data_type for t in onnx.load(str(file.path)).graph.initializer}
    assert types["0.weight_int8"] == TensorProto.INT8


def test_equal_small_constants_are_stored_once_and_weights_never_joined() -> None:
    names = ["a", "b", "c", "w1", "w2"]
    arrays = [np.float32(0.5), np.float32(0.5), np.float32(0.25), *[np.zeros((2, 2), np.int8)] * 2]
    nodes = [helper.make_node("Identity", [name], [f"out_{name}"]) for name in names]
    graph = helper.make_graph(
        nodes, "g", [], [helper.make_tensor_value_info(f"out_{n}", TensorProto.FLOAT, None) for n in names],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in zip(names, arrays, strict=True)],
    )  # fmt: skip
    proto = helper.make_model(graph)
    assert share_initializers(proto) == 1
    assert [t.name for t in proto.graph.initializer] == ["a", "c", "w1", "w2"]
    assert [node.input[0] for node in proto.graph.node] == ["a", "a", "c", "w1", "w2"]


@pytest.mark.parametrize(
    ("node", "layer"),
    [
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("/blocks.0/attn/qkv/MatMul", "blocks.0.attn.qkv"),
        ("/layer1/layer1.0/downsample/downsample.0/Conv", "layer1.0.downsample.0"),
        ("layer1.0.conv1/Conv", "layer1.0.conv1"),
        ("/Conv", ""),
        ("Conv", ""),
    ],
)
def test_a_node_s_name_tells_its_layer(node: str, layer: str) -> None:
    assert layer_of(node) == layer


def test_a_linear_layer_over_tokens_keeps_its_name(tmp_path: Path) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x).mean(1)

    file = export_float(Tokens(), torch.randn(2, 5, 6), tmp_path / "f.onnx", opset=17)
    assert {"body.0.weight", "body.2.weight"} <= {t.name for t in onnx.load(str(file.path)).graph.initializer}


def test_constants_of_zero_dimensions_keep_them() -> None:
    graph = Graph(helper.make_model(helper.make_graph([], "g", [], [])))
    graph.add_constant("scalar", np.array(3, np.int64))
    assert graph.constant("scalar").shape == ()


def test_tidying_twice_changes_nothing(resnet: object, tmp_path: Path) -> None:
    proto = onnx.load(str(resnet.file.path))  # type: ignore[attr-defined]
    before = proto.graph.SerializeToString(deterministic=True)
    tidy(proto)
    assert proto.graph.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(proto, full_check=True)
