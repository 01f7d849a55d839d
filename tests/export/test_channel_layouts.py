"""What the passes for fast kernels do: padded channels, dense groups, integer gates. The function stays."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edgekd.export.channels import ChannelClasses
from edgekd.export.coverage import check_coverage
from edgekd.export.weights import load_onnx, stored_weights
from edgekd.export.write import export_quantized
from edgekd.profiles.session import open_session
from edgekd.quant.qat import QuantizedModel, prepare_qat
from edgekd.quant.schemes import SCHEMES


class Gated(nn.Module):
    """Depthwise of 24 channels between 1x1 convolutions, HardSwish, squeeze-excite, and a shortcut."""

    def __init__(self, act: type[nn.Module] = nn.Hardswish) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(16, 24, 1)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.reduce, self.expand = nn.Conv2d(24, 8, 1), nn.Conv2d(8, 24, 1)
        self.narrow = nn.Conv2d(24, 16, 1)
        self.act, self.gate = act(), nn.Hardsigmoid()
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        y = self.act(self.depthwise(self.act(self.wide(x))))
        y = y * self.gate(self.expand(torch.relu(self.reduce(y.mean((2, 3), keepdim=True)))))
        return self.head((x + self.narrow(y)).mean((2, 3)))


class Ghost(nn.Module):
    """Half of the channels are a cheap depthwise function of the other half; 24 = 12 + 12 channels."""

    def __init__(self, channels: int = 24, kept: int = 24) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.primary = nn.Conv2d(16, channels // 2, 1)
        self.cheap = nn.Conv2d(channels // 2, channels // 2, 3, padding=1, groups=channels // 2)
        self.shortcut = nn.Conv2d(16, kept, 1)
        self.last = nn.Conv2d(kept, 8, 1)
        self.head = nn.Linear(8, 5)
        self.kept = kept

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        first = torch.relu(self.primary(x))
        both = torch.cat([first, torch.relu(self.cheap(first))], 1)[:, : self.kept]
        return self.head(self.last(both + self.shortcut(x)).mean((2, 3)))


def quantized(net: nn.Module, size: int = 64) -> tuple[QuantizedModel, Tensor]:
    torch.manual_seed(1)
    x = torch.randn(16, 3, size, size)
    model = prepare_qat(net.eval(), x, SCHEMES["u8s8"], style="full")
    model.calibrate([x])
    model.set_phase("frozen")
    return model.eval(), x


@torch.no_grad()
def written(net: nn.Module, path: Path, size: int = 64) -> Path:
    """The file, after its answers were compared with the fake-quantized network's."""
    model, x = quantized(net, size)
    file = export_quantized(model, x, path, opset=17).path
    answer = open_session(file).run(None, {"input": x.numpy()})[0]
    expected = model(x).numpy()
    assert (answer.argmax(1) == expected.argmax(1)).all()
    np.testing.assert_allclose(answer, expected, atol=0.02 * np.abs(expected).max())
    for rule in ("x86", "arm"):
        report = check_coverage(file, rule)  # type: ignore[arg-type]
        assert (report.coverage, report.leftover_qdq) == (1.0, 0), report.float_nodes
    return file


def groups(path: Path) -> list[int]:
    return [weight.group for weight in stored_weights(load_onnx(path)) if weight.group > 1]


def operators(path: Path) -> Counter[str]:
    optimized = path.with_suffix(".optimized.onnx")
    open_session(path, kernel_rule="x86", optimized_to=optimized)
    return Counter(node.op_type for node in onnx.load(str(optimized)).graph.node)


@pytest.mark.parametrize("act", [nn.Hardswish, nn.SiLU, nn.ReLU6])
def test_gates_run_in_integers_and_depthwise_channels_are_padded(
    act: type[nn.Module], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    path = written(Gated(act), tmp_path / "q.onnx")
    found = operators(path)
    assert found["HardSigmoid"] == found["Sigmoid"] == found["Mul"] == 0
    assert found["QLinearAdd"] == 1, "the residual sum alone: no gate is an addition"
    assert found["Tile"] == 1, "the gate of a 32 x 32 image is repeated along its rows"
    assert groups(path) == [32]
    stem = next(weight for weight in stored_weights(load_onnx(path)) if weight.layer == "stem")
    assert stem.values.shape == (32, 12, 3, 2), "two neighbours written, four read, of three channels each"


@pytest.mark.parametrize(("channels", "kept", "expected"), [(24, 24, 16), (24, 20, 16), (20, 20, 10)])
def test_concatenated_channels_are_padded_where_groups_of_four_stay_together(
    channels: int, kept: int, expected: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    path = written(Ghost(channels, kept), tmp_path / "q.onnx")
    assert groups(path) == [expected]


def test_an_image_is_padded_for_a_first_layer_that_was_widened(tmp_path: Path) -> None:
    """8 outputs are too few for the fast convolution; the depthwise layer behind makes 16 of them. Of 62 columns
    there are no groups of four."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(),
        nn.Conv2d(8, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip
    path = written(net, tmp_path / "q.onnx", size=62)
    first = next(iter(stored_weights(load_onnx(path))))
    assert first.values.shape == (16, 4, 3, 3) and not first.values[8:].any() and not first.values[:, 3].any()
    assert operators(path)["Pad"] == 1


def test_an_arm_file_is_padded_for_arm(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = quantized(Gated())
    file = export_quantized(model, x, tmp_path / "q.onnx", opset=17, kernels="arm")
    assert groups(file.path) == [24], "a multiple of 8 is enough"
    assert next(iter(stored_weights(load_onnx(file.path)))).values.shape == (16, 3, 3, 3)


def test_a_slice_of_sizes_is_none_of_channels() -> None:
    """Networks that compute their sizes in the graph cut the vector of sizes, which has no second dimension."""
    ends = [
        onnx.numpy_helper.from_array(np.array([value]), name)
        for name, value in (("a", 2), ("b", 4), ("d", 0))
    ]
    make = onnx.helper.make_node
    nodes = [make("Shape", ["x"], ["sizes"]), make("Slice", ["sizes", "a", "b", "d"], ["y"])]
    inputs = [onnx.helper.make_tensor_value_info("x", 1, [1, 3, 8, 8])]
    outputs = [onnx.helper.make_tensor_value_info("y", 7, [2])]
    proto = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", inputs, outputs, ends))
    classes = ChannelClasses(proto)
    assert classes.shapes["sizes"] == [4] and classes.kept_channels(proto.graph.node[1]) is None
