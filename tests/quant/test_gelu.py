"""GELU on bytes: near the float function, the file's integers to the bit, not for TensorRT."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from edgekd.export.coverage import check_coverage
from edgekd.export.write import export_quantized
from edgekd.profiles.session import open_session
from edgekd.quant.exact import ExactTwin
from edgekd.quant.gelu import LEAST, LOWEST, gelu_gate, lowest_byte
from edgekd.quant.qat import QuantizedModel, prepare_qat
from edgekd.quant.schemes import SCHEMES


class Mlp(nn.Module):
    """A GELU between convolutions, and one between layer norms."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(4, 16, 3), nn.Conv2d(16, 8, 1)
        self.before, self.behind, self.head = nn.LayerNorm(8), nn.LayerNorm(8), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(nn.functional.gelu(self.stem(x)))
        x = nn.functional.gelu(self.before(x.permute(0, 2, 3, 1)))
        return self.head(self.behind(x)).mean((1, 2))


def quantized() -> tuple[QuantizedModel, Tensor]:
    torch.manual_seed(0)
    x = 3 * torch.randn(8, 4, 10, 10)
    model = prepare_qat(Mlp().eval(), x, SCHEMES["u8s8"])
    model.calibrate([x])
    model.set_phase("frozen")
    return model.eval(), x


def operators(model: QuantizedModel, x: Tensor, path: Path) -> Counter[str]:
    export_quantized(model, x, path, opset=20)
    return Counter(node.op_type for node in onnx.load(str(path)).graph.node)


def test_it_is_gelu_to_half_a_step_of_a_usual_byte() -> None:
    x = torch.linspace(-9, 9, 20_001)
    difference = (x * gelu_gate(x) - nn.functional.gelu(x)).abs()
    assert 0.0095 < float(difference.max()) < 0.0103
    assert not difference[x < -3.3].gt(0.004).any() and not difference[x > 3.3].gt(0.004).any()


@pytest.mark.parametrize("high", [0.1, 3.0, 20.0])
def test_no_byte_of_a_range_that_begins_at_its_lowest_needs_the_clip(high: float) -> None:
    scale = (high - LOWEST) / 255
    assert (
        lowest_byte(scale, round(-LOWEST / scale)) >= LEAST > lowest_byte(scale, round(-1.1 * LOWEST / scale))
    )


def test_its_gradient_is_that_of_the_smooth_curve() -> None:
    x = torch.linspace(-4, 4, 401, requires_grad=True)
    (x * gelu_gate(x)).sum().backward()
    own, x.grad = x.grad, None
    nn.functional.gelu(x).sum().backward()
    assert own is not None and x.grad is not None
    assert float((own - x.grad).abs().max()) < 0.05


def test_the_file_has_the_simulated_integers(tmp_path: Path) -> None:
    model, x = quantized()
    assert {str(site) for site in model.placement.gelus} == {"<root>:gelu"}, "between bytes alone"
    path = tmp_path / "q.onnx"
    found = operators(model, x, path)
    assert (found["Sigmoid"], found["Clip"], found["Sub"], found["Mul"]) == (1, 0, 0, 1)
    open_session(path, kernel_rule="x86", optimized_to=tmp_path / "optimized.onnx")
    kinds = Counter(node.op_type for node in onnx.load(str(tmp_path / "optimized.onnx")).graph.node)
    assert kinds["QLinearSigmoid"] == kinds["QLinearMul"] == 1 and kinds["Gelu"] == 1
    for rule in ("x86", "arm"):
        assert check_coverage(path, rule).coverage == 1.0  # type: ignore[arg-type]


class Sum(nn.Module):
    """What a GELU reads may reach down to any value, since it is a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(4, 16, 3), nn.Conv2d(4, 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) + self.right(x)


@torch.no_grad()
@pytest.mark.parametrize("behind", ["convolution", "sum"])
def test_the_integers_are_the_file_s_to_the_bit(behind: str, tmp_path: Path) -> None:
    """Far below -3 the gate must be 0: by the range's end behind a convolution, by a Clip behind a sum."""
    torch.manual_seed(0)
    x = 9 * torch.randn(8, 4, 10, 10)
    net = nn.Sequential(
        Sum() if behind == "sum" else nn.Conv2d(4, 16, 3), nn.GELU(), nn.Conv2d(16, 8, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6),
    )  # fmt: skip
    model = prepare_qat(net.eval(), x, SCHEMES["u8s8"])
    model.calibrate([x])
    model.set_phase("frozen")
    file = export_quantized(model.eval(), x, tmp_path / "q.onnx", opset=17)
    assert any(note.startswith("1 GELU is a table of bytes") for note in file.notes)
    clips = sum(node.op_type == "Clip" for node in onnx.load(str(file.path)).graph.node)
    assert clips == int(behind == "sum")
    answer = torch.from_numpy(open_session(file.path).run(None, {"input": x.numpy()})[0])
    torch.testing.assert_close(answer, ExactTwin(model, x)(x), rtol=0, atol=1e-6)
    torch.testing.assert_close(answer, net(x), rtol=0, atol=0.05 * float(answer.abs().max()))


def test_tensorrt_keeps_its_own(tmp_path: Path) -> None:
    model, x = quantized()
    found = operators(model.with_scheme(SCHEMES["s8s8"]), x, tmp_path / "t.onnx")
    assert found["Gelu"] == 2 and found["Sigmoid"] == 0


@pytest.mark.parametrize("opset", [13, 20])
def test_any_opset_has_it(opset: int, tmp_path: Path) -> None:
    model, x = quantized()
    export_quantized(model, x, tmp_path / "q.onnx", opset=opset)
    kinds = Counter(node.op_type for node in onnx.load(str(tmp_path / "q.onnx")).graph.node)
    assert kinds["Sigmoid"] == 1 and kinds["Gelu"] + kinds["Erf"] == 1
