"""The real aarch64 ONNX Runtime under an emulated Cortex-A72 and Cortex-A76, on a small net in fp32 and in int8."""

from __future__ import annotations

import json
import os
import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.device import load_device
from edgekd.errors import EdgeKDError, MissingDependencyError, ModelFileError
from edgekd.profiles import emulate, emulate_outputs
from edgekd.profiles.emulation import programs
from edgekd.profiles.emulation.api import count
from edgekd.profiles.emulation.cores import emulated_core
from edgekd.profiles.emulation.counts import classes
from edgekd.profiles.emulation.userland import find_userland, set_up

PI4, PI5 = "raspberry-pi-4b", "raspberry-pi-5"
# 3x3 on 16 x 16, then 1x1, then depthwise, then a classifier.
MACS = {"dense": 16 * 256 * 8 * 9, "point": 32 * 256 * 16, "depthwise": 32 * 256 * 9, "head": 32 * 10}


@pytest.fixture(scope="session")
def core(needs):
    """Everything that an emulated core needs; fetched into the user's cache once."""
    needs("cc")
    if find_userland() is None:
        try:
            set_up()
        except EdgeKDError as error:
            (pytest.fail if os.environ.get("EDGEKD_CI") == "1" else pytest.skip)(str(error))
    try:
        programs.qemu()
    except MissingDependencyError as error:
        (pytest.fail if os.environ.get("EDGEKD_CI") == "1" else pytest.skip)(str(error))


@pytest.fixture(scope="session")
def net(tmp_path_factory):
    """The fp32 file. Named with what no shell would take as one word."""
    random = np.random.default_rng(0)
    shapes = {"dense": (16, 8, 3, 3), "point": (32, 16, 1, 1), "depthwise": (32, 1, 3, 3), "head": (32, 10)}
    weights = {
        name: (random.standard_normal(shape) / np.sqrt(MACS[name] / 2560)).astype(np.float32)
        for name, shape in shapes.items()
    }
    nodes = [
        helper.make_node("Conv", ["x", "dense"], ["a"], name="/dense/Conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="/relu"),
        helper.make_node("Conv", ["b", "point"], ["c"], name="/point/Conv"),
        helper.make_node("Relu", ["c"], ["c1"], name="/relu1"),
        helper.make_node(
            "Conv", ["c1", "depthwise"], ["d"], name="/depthwise/Conv", pads=[1, 1, 1, 1], group=32
        ),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], name="/pool"),
        helper.make_node("Flatten", ["e"], ["f"], name="/flat"),
        helper.make_node("Gemm", ["f", "head"], ["logits"], name="/head"),
    ]
    graph = helper.make_graph(
        nodes, "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )  # fmt: skip
    file = tmp_path_factory.mktemp("emulated") / "a small 'net'; $(x).onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    return file


@pytest.fixture(scope="session")
def int8(net):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = iter([{"x": row[None]} for row in samples(8)])

        def get_next(self):
            return next(self.left, None)

    file = net.with_name("int8.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_static(net, file, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)  # fmt: skip
    return file


def samples(count: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 8, 16, 16)).astype(np.float32)


def counted(file, device):
    return count(file, emulated_core(load_device(device)))[0]


def test_fp32_on_a_cortex_a72(core, net):
    told: list[str] = []
    found = emulate(net, PI4, progress=told.append)
    assert found.kind == "emulated" and found.runtime_version == "1.31.1"
    assert not found.validated  # a thousandth of the smallest network published
    assert found.device == PI4 and found.threads == 4 and found.precision == "fp32"
    assert 0.01 < found.low_ms < found.p50_ms < found.high_ms < 10
    # A vector holds four products; remainders and the pooling's sums come on top.
    least = sum(MACS.values()) / 4
    assert least <= found.instructions["simd-fma"] < 1.3 * least
    assert "simd-dot" not in found.instructions
    by = {each.node.split("/")[1]: each for each in found.operators}
    assert {name: by[name].macs for name in MACS} == MACS
    assert by["depthwise"].family == "conv-depthwise" and by["point"].family == "conv-1x1"
    assert max(found.operators, key=lambda each: each.milliseconds).node.startswith("/dense")
    assert sum(each.milliseconds for each in found.operators) == pytest.approx(found.p50_ms)
    assert "Cortex-A72" in told[0] and "M instructions" in told[-1]
    entry = json.loads(json.dumps(found.to_json()))
    assert entry["kind"] == "emulated" and entry["instructions"]["simd-fma"] >= least


def test_the_boards_own_int8_kernels(core, int8):
    """The dot product is there on the A76 alone, by the runtime's own choice."""
    old, new = counted(int8, PI4), counted(int8, PI5)
    assert classes(old.whole).get("simd-dot", 0) == 0
    dense = MACS["dense"] + MACS["point"]
    assert classes(new.whole)["simd-dot"] >= dense / 16
    assert classes(old.whole)["simd-multiply"] > 2 * classes(new.whole)["simd-multiply"]
    assert new.whole.instructions < old.whole.instructions
    dots = {each.node.split("/")[1].split("_")[0]: classes(each.region).get("simd-dot", 0)
            for each in new.operators if "Conv" in each.node}  # fmt: skip
    assert dots["dense"] >= MACS["dense"] / 16 and dots["depthwise"] == 0


def test_arm_answers_as_x86_does(core, net, int8):
    feeds = {"x": samples(24)}
    plain = emulate_outputs(net, PI4, feeds)
    assert plain.core == "Cortex-A72" and plain.samples == 24 and plain.step == 0.0
    assert plain.top1 == 1.0 and plain.max_abs_diff < 1e-5
    integers = emulate_outputs(int8, PI5, feeds)
    # The same arithmetic, but roundings may fall either way: a step of the output is about 1 % of its range.
    assert integers.explained and integers.top1 >= 0.9 and integers.max_abs_diff < 0.2


def test_a_file_with_settled_scales_answers_the_same_to_the_last_bit(core, tmp_path):
    """A residual, a HardSwish and a gate: what Arm would round otherwise (edgekd/quant/settle.py)."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    from edgekd.export.write import export_quantized
    from edgekd.quant.qat import prepare_qat
    from edgekd.quant.schemes import SCHEMES

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.last = (nn.Conv2d(8, 8, 1) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.hardswish(self.left(x) + self.right(x))
            return self.last(x * F.hardsigmoid(self.last(F.adaptive_avg_pool2d(x, 1)))).flatten(1)

    torch.manual_seed(0)
    x = torch.from_numpy(samples(24))
    net = Net().eval()
    with (
        torch.no_grad()
    ):  # the same channels in another order, but for the extremes: a sum of twice the range
        values = net.left(x).transpose(0, 1).flatten(1)
        kept = {int(values.amin(1).argmin()), int(values.amax(1).argmax())}
        others = [channel for channel in range(8) if channel not in kept]
        net.right.load_state_dict(net.left.state_dict())
        net.right.weight[others], net.right.bias[others] = (
            net.left.weight[others[::-1]],
            net.left.bias[others[::-1]],
        )
    model = prepare_qat(net, x[:2], SCHEMES["u8s8"], style="full").eval()
    model.calibrate(x.split(8))
    file = tmp_path / "gated.onnx"
    export_quantized(model, x[:1], file, opset=17, kernels="arm")
    for board in (PI4, PI5):
        assert emulate_outputs(file, board, {"input": samples(24)}).max_abs_diff == 0


def test_a_file_that_does_not_run_there_says_so_in_one_line(core, tmp_path, net):
    model = onnx.load(net)
    model.graph.node[2].domain = "no.such.domain"
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(ModelFileError) as error:
        emulate(tmp_path / "odd.onnx", PI4)
    assert "\n" not in str(error.value)


def test_without_qemu_the_error_says_what_to_install(monkeypatch, tmp_path, net):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="edgekd devices emulate --setup"):
        emulate(net, PI4)
    monkeypatch.setenv("PATH", str(tmp_path))
    programs.qemu.cache_clear()
    with pytest.raises(MissingDependencyError, match="apt-get install qemu-user"):
        programs.qemu()
    with pytest.raises(MissingDependencyError, match="apt-get install gcc"):
        programs.compiler()
    monkeypatch.undo()
    programs.qemu.cache_clear()


@pytest.mark.parametrize(("device", "why"), [("x86-64-avx2", "only Arm boards")])
def test_a_board_without_an_arm_core_is_refused(device, why, net):
    from edgekd.errors import DeviceError

    with pytest.raises(DeviceError, match=why):
        emulate(net, device)


def test_no_threads_are_refused(net):
    with pytest.raises(ValueError, match="at least 1"):
        emulate(net, PI4, threads=0)
