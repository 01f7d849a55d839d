"""Scales by which Arm's kernels give x86's integers. Golden counts: both kernels run over all pairs of bytes, ONNX
Runtime 1.31.1 here and on an emulated Cortex-A72."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.export.parity import parity_of_file
from edgekd.export.write import export_quantized
from edgekd.models.calls import Site
from edgekd.quant.byte_kernels import Grid, product_arm, product_x86, same_on_arm, sum_arm, sum_x86
from edgekd.quant.exact import ExactTwin
from edgekd.quant.qat import QuantizedModel, prepare_qat
from edgekd.quant.schemes import SCHEMES
from edgekd.quant.settle import grid_of, settle_scales


def grid(scale: float, zero: int) -> Grid:
    return Grid(float(np.float32(scale)), -zero, 255 - zero, zero)


@pytest.mark.parametrize(
    ("left", "right", "out", "apart"),
    [  # the same scale twice, into twice and four times that: halves and quarters
        ((0.013607134111225605, 182), (0.013607134111225605, 80), (0.02721426822245121, 235), 10852),
        ((0.004050754941999912, 98), (0.004050754941999912, 97), (0.01620301976799965, 106), 8290),
        ((0.026716791093349457, 0), (0.0025669101160019636, 0), (0.053433582186698914, 0), 64),
        ((0.05910354107618332, 234), (0.03900814801454544, 94), (0.23641416430473328, 15), 9),
        # no tie: Arm's multiplier has 22 bits
        ((0.031428463757038116, 242), (0.3556584417819977, 65), (0.3211877644062042, 104), 1),
        ((0.5291, 7), (0.3107, 31), (0.6113, 12), 0),
    ],
)
def test_sums_that_arm_rounds_otherwise(left, right, out, apart: int) -> None:
    a, b, c = grid(*left), grid(*right), grid(*out)
    pairs = [torch.arange(each.low, each.high + 1, dtype=torch.float64) for each in (a, b)]
    x, y = torch.meshgrid(*pairs, indexing="ij")
    arm = sum_arm(x, y, a, b, c)
    assert arm is not None
    assert int((arm != sum_x86(x, y, a, b, c)).sum()) == apart
    assert same_on_arm(False, a, b, c) == (apart == 0)


def test_products_that_arm_rounds_once_and_x86_twice() -> None:
    a, b, c = grid(0.0342654325067997, 208), grid(0.0342654325067997, 248), grid(0.15028733015060425, 186)
    x, y = (torch.arange(each.low, each.high + 1, dtype=torch.float64) for each in (a, b))
    arm, x86 = (kernel(x[:, None], y, a, b, c) for kernel in (product_arm, product_x86))
    assert int((arm != x86).sum()) == 17 and not same_on_arm(True, a, b, c)
    other = c._replace(scale=float(np.float32(c.scale * (1 - 2**-12))))
    assert same_on_arm(True, a, b, other)


def test_half_of_a_hard_sigmoid_at_zero() -> None:
    line, one, out = grid(0.0014363868394866586, 228), Grid(0.5, 0, 255, 0), grid(1 / 255, 0)
    zero, constant = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    assert sum_x86(zero, constant, line, one, out) == 127
    assert sum_arm(zero, constant, line, one, out) == 128
    assert not same_on_arm(False, line, one, out, constant=1)


def test_scales_too_far_apart_for_arms_integer_kernel() -> None:
    a, out = grid(0.01, 0), grid(0.01, 0)
    zero = torch.zeros(1, dtype=torch.float64)
    assert sum_arm(zero, zero, a, grid(0.01 * 2**-13, 0), out) is not None
    for scale in (0.01 * 2**-15, 0.01 * 256):
        assert sum_arm(zero, zero, a, grid(scale, 0), out) is None
        assert not same_on_arm(False, a, grid(scale, 0), out)


class Gated(nn.Module):
    """Two equal branches, whose sum has twice their range; HardSwish of it and of a layer; squeeze and excite."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = (nn.Conv2d(3, 3, 1, bias=False) for _ in range(3))
        with torch.no_grad():
            for layer in (self.left, self.right):
                layer.weight.copy_(torch.eye(3).reshape(3, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.left(x) + self.right(x))
        x = F.hardswish(self.last(x))
        return self.last(x * F.hardsigmoid(self.last(F.adaptive_avg_pool2d(x, 1)))).flatten(1)


@pytest.fixture
def gated() -> tuple[QuantizedModel, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(16, 3, 12, 12)
    model = prepare_qat(Gated().eval(), x[:2], SCHEMES["u8s8"], style="full").eval()
    model.calibrate(x.split(8))
    model.set_phase("frozen")
    return model, x


def test_settled_ranges_are_narrowed_a_little_and_stay(gated) -> None:
    model, x = gated
    before = {site: grid_of(model, site) for site in model.placement.ranges}
    found = settle_scales(model, x[:2])
    after = {site: grid_of(model, site) for site in model.placement.ranges}
    changed = {site for site in before if before[site] != after[site]}
    assert found.narrowed == len(changed) and found.apart == ()
    assert Site("", "add", 0) in changed, "twice the scale of what it reads: every odd sum is a tie"
    for site in changed:
        assert 0.99 < after[site].scale / before[site].scale < 1 and after[site].zero == before[site].zero
    assert {kernel.kind for kernel in found.kernels.values()} >= {"add", "mul", "line", "gated", "hardswish"}
    assert settle_scales(model, x[:2]).narrowed == 0


def test_the_file_has_the_settled_scales(gated, tmp_path) -> None:
    """Read from the file alone."""
    model, x = gated
    before = {site: grid_of(model, site) for site in model.placement.ranges}
    path = tmp_path / "model.onnx"
    export_quantized(model, x[:1], path, opset=17)
    assert before == {site: grid_of(model, site) for site in before}, "the model itself stays as it was"
    graph = onnx.load(path).graph
    numbers = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producer = {name: node for node in graph.node for name in node.output}
    reader = {name: node for node in graph.node for name in node.input}

    def read(node: onnx.NodeProto) -> Grid:
        return grid(numbers[node.input[1]].item(), int(numbers[node.input[2]].item()))

    checked = 0
    for node in graph.node:
        if node.op_type not in ("Add", "Mul"):
            continue
        left, right = (producer[name] for name in node.input)
        constant = numbers.get(right.input[0])
        value = None if constant is None else int(constant.item())
        out = read(reader[node.output[0]])
        assert same_on_arm(node.op_type == "Mul", read(left), read(right), out, constant=value), node.name
        checked += 1
    assert checked == 5, "a sum, a hard sigmoid, three products"


def test_the_exact_twin_has_the_files_scales(gated, tmp_path) -> None:
    model, x = gated
    path = tmp_path / "model.onnx"
    export_quantized(model, x[:1], path, opset=17)
    twin = ExactTwin(model, x[:2])
    found = parity_of_file(path, lambda given: twin(torch.from_numpy(given)).numpy(), x.numpy())
    assert found.max_abs_diff == 0


def test_tensorrts_scales_are_left_alone(gated) -> None:
    model, x = gated
    other = model.with_scheme(SCHEMES["s8s8"])
    before = [grid_of(other, site) for site in other.placement.ranges]
    settle_scales(other, x[:2])
    assert before == [grid_of(other, site) for site in other.placement.ranges]
