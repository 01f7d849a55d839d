"""Biases become int32 in every layer, also where channels are dead or nearly so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from edgekd.export.coverage import check_coverage
from edgekd.export.write import export_quantized
from edgekd.profiles.session import open_session
from edgekd.quant.qat import prepare_qat
from edgekd.quant.schemes import SCHEMES


def exported(path: Path, gains: list[float], bias: float) -> tuple[Any, dict[str, np.ndarray], torch.Tensor]:
    """A convolution whose channels are scaled by ``gains`` and whose biases are all ``bias``."""
    torch.manual_seed(0)
    x = torch.randn(16, 4, 8, 8)
    net = nn.Sequential(
        nn.Conv2d(4, len(gains), 3), nn.ReLU(), nn.Conv2d(len(gains), 4, 3), nn.Flatten()
    ).eval()
    with torch.no_grad():
        net[0].weight.mul_(torch.tensor(gains).reshape(-1, 1, 1, 1))
        net[0].bias.fill_(bias)
    model = prepare_qat(net, x, SCHEMES["u8s8"])
    model.calibrate([x])
    model.set_phase("frozen")
    file = export_quantized(model.eval(), x, path, opset=17)
    with torch.no_grad():
        reference = model(x)
    constants = {t.name: numpy_helper.to_array(t) for t in onnx.load(str(path)).graph.initializer}
    written = open_session(path).run(None, {"input": x.numpy()})[0]
    step = model.activation_quantizers()[-1].numbers()[0]
    assert np.abs(written - reference.numpy()).max() <= 2.5 * step, "two steps of the output"
    return file, constants, x


def test_a_channel_without_weights_takes_the_scale_of_the_others(tmp_path: Path) -> None:
    file, constants, _ = exported(tmp_path / "q.onnx", [1.0, 0.0, 1.0, 1.0], bias=0.7)
    assert file.notes == () and not constants["0.weight_int8"][1].any()
    assert constants["0.weight_scale"][1] == constants["0.weight_scale"].max()
    np.testing.assert_allclose(
        constants["0.bias_int32"][1] * float(constants["0.bias_scale"][1]), 0.7, rtol=1e-4
    )
    assert check_coverage(tmp_path / "q.onnx").coverage == 1.0


@pytest.mark.parametrize("gain", [1e-9, 1e-12])
def test_a_dead_channel_does_not_keep_the_bias_in_float(gain: float, tmp_path: Path) -> None:
    file, constants, _ = exported(tmp_path / "q.onnx", [1.0, gain, 1.0, 1.0], bias=0.7)
    bias, scale = constants["0.bias_int32"], constants["0.bias_scale"]
    assert bias.dtype == np.int32 and np.abs(bias).max() <= 2**30
    np.testing.assert_allclose(bias * scale.astype(np.float64), 0.7, rtol=1e-4)
    np.testing.assert_allclose(bias[1] * float(scale[1]), 0.7, rtol=1e-6)
    assert not constants["0.weight_int8"][1].any(), "what is left of it is zero"
    assert np.abs(constants["0.weight_int8"][[0, 2, 3]]).max() == 127, "the others keep their integers"
    assert "in 1 layers" in file.notes[0]
    # The bias scale is input scale times weight scale, which is how the kernel reads the bias.
    proto = onnx.load(str(tmp_path / "q.onnx"))
    input_scale = constants[next(n for n in proto.graph.node if n.op_type == "QuantizeLinear").input[1]]
    np.testing.assert_allclose(scale, constants["0.weight_scale"] * input_scale, rtol=1e-6)
    assert check_coverage(tmp_path / "q.onnx").coverage == 1.0


def test_a_weak_channel_loses_only_what_the_bias_drowns(tmp_path: Path) -> None:
    file, constants, _ = exported(tmp_path / "q.onnx", [1.0, 2e-4, 1.0, 1.0], bias=40.0)
    integers = constants["0.weight_int8"][1]
    assert 0 < np.abs(integers).max() < 127
    np.testing.assert_allclose(
        constants["0.bias_int32"] * constants["0.bias_scale"].astype(float), 40.0, rtol=1e-5
    )
    assert len(file.notes) == 1


def test_ordinary_layers_are_left_alone(tmp_path: Path) -> None:
    file, constants, _ = exported(tmp_path / "q.onnx", [1.0, 0.5, 2.0, 1.0], bias=0.7)
    assert file.notes == ()
    assert (np.abs(constants["0.weight_int8"]).reshape(4, -1).max(1) == 127).all()


@pytest.mark.parametrize("scheme", ["u8s8", "s8s8"])
@pytest.mark.parametrize("gain", [0.0, 1e-9])
def test_a_layer_that_runs_twice_has_a_bias_for_each_input(gain: float, scheme: str, tmp_path: Path) -> None:
    """Also with float biases: ONNX Runtime quantizes those itself, and overflows on a tiny scale."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(torch.relu(self.conv(x))).flatten(1)

    torch.manual_seed(0)
    x = torch.randn(4, 4, 8, 8)
    net = Shared().eval()
    with torch.no_grad():
        net.conv.weight[1] *= gain
        net.conv.bias[1] = 0.5
    model = prepare_qat(net, x, SCHEMES[scheme])
    model.calibrate([x])
    model.set_phase("frozen")
    file = export_quantized(model.eval(), x, tmp_path / "q.onnx", opset=17)
    step = model.activation_quantizers()[-1].numbers()[0]
    with torch.no_grad():
        written = open_session(file.path).run(None, {"input": x.numpy()})[0]
        assert np.abs(written - model(x).numpy()).max() <= 2.5 * step
