"""HardSwish on its own bytes: the range begins at -3; the file has the simulated integers, one clip, one product."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.export.coverage import check_coverage
from edgekd.export.write import export_quantized
from edgekd.models.calls import Site
from edgekd.profiles.session import open_session
from edgekd.quant.exact import ExactTwin
from edgekd.quant.fake_quant import ActivationQuantizer
from edgekd.quant.hardswish import gate_of_bytes
from edgekd.quant.qat import QuantizedModel, prepare_qat
from edgekd.quant.schemes import SCHEMES
from edgekd.quant.settle import grid_of
from edgekd.quant.simulate import range_key


class Net(nn.Module):
    """HardSwish behind a convolution, behind one whose output is read twice, and behind a sum."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.stem, self.twice, self.last = nn.Conv2d(4, 16, 3), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 6)
        with torch.no_grad():
            self.stem.weight.mul_(weight)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(F.dropout(self.stem(x), 0.1, self.training))
        y = self.twice(x)
        y = F.hardswish(self.last(F.hardswish(y)) + y)
        return self.head(y.mean((2, 3)))


STEM = Site("stem", "conv2d", 0)


def quantized(weight: float = 1.0, ranges: str = "moving-average") -> tuple[QuantizedModel, Tensor]:
    torch.manual_seed(0)
    x = 3 * torch.randn(16, 4, 10, 10)
    model = prepare_qat(Net(weight).eval(), x, SCHEMES["u8s8"], ranges=ranges)  # type: ignore[arg-type]
    model.calibrate([x])
    model.set_phase("frozen")
    return model.eval(), x


def test_only_a_range_that_nothing_else_reads_is_anchored() -> None:
    model, _ = quantized()
    assert model.placement.hardswishes == {Site("", "hardswish", 0): STEM}
    grid = grid_of(model, STEM)
    assert grid.low * grid.scale == pytest.approx(-3, rel=1e-6) and grid.zero == -grid.low > 0
    assert grid.high * grid.scale == pytest.approx(model.range_of(STEM)[1], rel=0.01)


@pytest.mark.parametrize("weight", [0.01, 0.3, 1.0, 30.0])
def test_the_gate_of_every_byte_is_the_hard_sigmoid(weight: float) -> None:
    grid = grid_of(quantized(weight)[0], STEM)
    gate = gate_of_bytes(grid)
    integers = torch.arange(grid.low, grid.high + 1)
    own = (integers - grid.low).clamp_max(gate.high) * gate.scale
    torch.testing.assert_close(own, F.hardsigmoid(integers * grid.scale), rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(("weight", "cut"), [(0.3, False), (1.0, True), (30.0, True)])
def test_the_file_has_the_simulated_integers(weight: float, cut: bool, tmp_path: Path) -> None:
    """The first picture's values stay below 3, where nothing is cut."""
    model, x = quantized(weight)
    path = tmp_path / "q.onnx"
    export_quantized(model, x, path, opset=17)
    clips = [node for node in onnx.load(str(path)).graph.node if node.op_type == "Clip"]
    assert len(clips) == int(cut)
    answer = torch.from_numpy(open_session(path).run(None, {"input": x.numpy()})[0])
    torch.testing.assert_close(answer, ExactTwin(model, x)(x), rtol=0, atol=1e-6)
    torch.testing.assert_close(answer, model.model(x), rtol=0, atol=0.05 * float(answer.abs().max()))


def test_the_runtime_adds_nothing_for_it(tmp_path: Path) -> None:
    model, x = quantized()
    path = tmp_path / "q.onnx"
    export_quantized(model, x, path, opset=17)
    open_session(path, kernel_rule="x86", optimized_to=tmp_path / "optimized.onnx")
    kinds = Counter(node.op_type for node in onnx.load(str(tmp_path / "optimized.onnx")).graph.node)
    assert kinds["QLinearMul"] == 3 and kinds["QLinearAdd"] == 3, "the sum, and the gates of the two others"
    for rule in ("x86", "arm"):
        assert check_coverage(path, rule).coverage == 1.0  # type: ignore[arg-type]


def test_tensorrt_keeps_its_own(tmp_path: Path) -> None:
    model, x = quantized()
    other = model.with_scheme(SCHEMES["s8s8"])
    export_quantized(other, x, tmp_path / "t.onnx", opset=17)
    assert grid_of(other, STEM).zero == 0
    kinds = Counter(node.op_type for node in onnx.load(str(tmp_path / "t.onnx")).graph.node)
    assert kinds["HardSigmoid"] == 3 and kinds["Clip"] == 0


def test_a_learned_range_moves_its_upper_end_alone() -> None:
    model, x = quantized(ranges="learned")
    model.train().set_phase("train")
    quantizer = model.quantizers[range_key(STEM)]
    assert isinstance(quantizer, ActivationQuantizer)
    model(x).square().sum().backward()
    assert quantizer.low.grad is not None and float(quantizer.low.grad) == 0
    assert quantizer.high.grad is not None and float(quantizer.high.grad) != 0
    scale, zero = quantizer._differentiable()
    assert (float(scale.detach()), round(float(zero.detach()))) == pytest.approx(quantizer.numbers())


class Excited(nn.Module):
    """Hard sigmoids behind a convolution with a bias, one without, and one that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 16, 3)
        self.one, self.two = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1, bias=False)
        self.head = nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for layer in (self.one, self.two, self.two):
            x = layer(x * F.hardsigmoid(layer(F.adaptive_avg_pool2d(x, 1))))
        return self.head(x.mean((2, 3)))


@torch.no_grad()
def test_a_hard_sigmoid_behind_a_convolution_is_its_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = 3 * torch.randn(16, 4, 10, 10)
    model = prepare_qat(Excited().eval(), x, SCHEMES["u8s8"]).eval()
    model.calibrate([x])
    model.set_phase("frozen")
    path = tmp_path / "q.onnx"
    export_quantized(model, x, path, opset=17)
    open_session(path, kernel_rule="x86", optimized_to=tmp_path / "optimized.onnx")
    kinds = Counter(node.op_type for node in onnx.load(str(tmp_path / "optimized.onnx")).graph.node)
    assert kinds["QLinearConv"] == 7 and kinds["QLinearAdd"] == kinds["HardSigmoid"] == 0
    answer = torch.from_numpy(open_session(path).run(None, {"input": x.numpy()})[0])
    torch.testing.assert_close(answer, ExactTwin(model, x)(x), rtol=0, atol=1e-6)
    torch.testing.assert_close(answer, model(x), rtol=0, atol=0.02 * float(answer.abs().max()))
    other = tmp_path / "t.onnx"
    export_quantized(model.with_scheme(SCHEMES["s8s8"]), x, other, opset=17)
    assert sum(node.op_type == "HardSigmoid" for node in onnx.load(str(other)).graph.node) == 3
