"""Parts of a concatenation on its grid: bytes are copied, values rounded once, its own range followed."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from edgekd.export.write import export_quantized
from edgekd.models.calls import record_calls
from edgekd.profiles.session import open_session
from edgekd.quant.exact import ExactTwin
from edgekd.quant.placement import Placement, plan_placement
from edgekd.quant.qat import QuantizedModel, prepare_qat
from edgekd.quant.schemes import SCHEMES


class Parts(nn.Module):
    """Two convolutions side by side; ``acts`` behind them; the first is read by the second too."""

    def __init__(self, *acts: nn.Module, again: bool = False) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.last, self.head = nn.Conv2d(24 if again else 16, 8, 1), nn.Linear(8, 4)
        self.acts, self.again = nn.ModuleList(acts), again

    def forward(self, x: Tensor) -> Tensor:
        a = self.acts[0](self.a(torch.relu(self.stem(x))))
        b = self.acts[1](self.b(a))
        both = torch.cat([a, b], 1)
        if self.again:
            both = torch.cat([both, a], 1)
        return self.head(torch.relu(self.last(both)).mean((2, 3)))


def quantized(net: nn.Module) -> tuple[QuantizedModel, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(8, 3, 14, 14)
    model = prepare_qat(net.eval(), x, SCHEMES["u8s8"])
    model.calibrate([x])
    model.set_phase("frozen")
    return model.eval(), x


def ranges(net: nn.Module) -> tuple[Placement, dict[str, str]]:
    placement = plan_placement(record_calls(net.eval(), torch.randn(2, 3, 14, 14)))
    return placement, {str(site): str(kept) for site, kept in placement.points.items()}


def test_the_file_copies_the_parts_and_answers_as_the_integers_do(tmp_path: Path) -> None:
    model, x = quantized(Parts(nn.ReLU(), nn.ReLU()))
    file = export_quantized(model, x, tmp_path / "q.onnx", opset=17).path
    open_session(file, kernel_rule="x86", optimized_to=tmp_path / "optimized.onnx")
    graph = onnx.load(str(tmp_path / "optimized.onnx")).graph
    (joined,) = [node for node in graph.node if node.op_type == "QLinearConcat"]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    scale, zero = (constants[name] for name in joined.input[:2])
    assert [constants[name] for name in joined.input[3::3]] == [scale, scale]
    assert [constants[name] for name in joined.input[4::3]] == [zero, zero]
    assert not [node for node in graph.node if node.op_type in ("Relu", "Conv")]
    answer = open_session(file).run(None, {"input": x.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(answer), ExactTwin(model, x)(x), rtol=0, atol=1e-6)


def test_clips_that_all_parts_share_bound_the_range() -> None:
    placement, points = ranges(Parts(nn.ReLU6(), nn.ReLU6()))
    assert points["acts.0:hardtanh"] == points["acts.1:hardtanh"] == "<root>:cat"
    bounds = {str(site): limits for site, limits in placement.bounds.items()}
    assert bounds["<root>:cat"] == (0.0, 6.0)
    assert {str(kept) for site, kept in placement.inputs.items() if site.module == "b"} == {"<root>:cat"}


@pytest.mark.parametrize(
    "net",
    [Parts(nn.ReLU(), nn.Identity()), Parts(nn.ReLU(), nn.ReLU6()), Parts(nn.ReLU(), nn.ReLU(), again=True)],
)
def test_other_clips_and_other_concatenations_keep_ranges_apart(net: nn.Module) -> None:
    _, points = ranges(net)
    assert points["<root>:cat"] == "<root>:cat"
    own = [site for site in points if site.startswith(("acts", "b:conv"))]
    assert len(own) == 2 and all(points[site] == site for site in own)


def test_an_averaged_range_follows_the_concatenation_alone() -> None:
    """Parts with ranges of 1 and 8: their mean would cut the wider off."""
    net = Parts(nn.ReLU(), nn.ReLU())
    with torch.no_grad():
        net.b.weight.mul_(8)
    model, x = quantized(net)
    site = next(site for site in model.placement.points if site.op == "cat")
    _, before = model.range_of(site)
    model.train().set_phase("train")
    with torch.no_grad():
        for _ in range(60):
            model(x)
    _, after = model.range_of(site)
    assert after == pytest.approx(before, rel=0.05)
