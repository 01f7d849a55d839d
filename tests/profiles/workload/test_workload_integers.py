"""Which operators compute in integers, and what their float islands cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgekd.profiles.estimation.operators import Operator
from edgekd.profiles.estimation.workload import read_workload

WriteOnnx = Callable[..., Path]
MAP = "(float[1,8,6,6] x) => (float[1,8,6,6] y)"
IN = "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) wf = DequantizeLinear (w, s)"
WEIGHTS = {"s": np.float32(0.1), "z": np.uint8(0), "w": np.ones((8, 8, 1, 1), np.int8)}


def ops(path: Path) -> list[Operator]:
    return list(read_workload(path).operators)


def test_a_convolution_between_two_pairs(write_onnx: WriteOnnx) -> None:
    nodes = f"{IN} c = Conv (d, wf) r = Relu (c) p = QuantizeLinear (r, s, z) y = DequantizeLinear (p, s, z)"
    first, conv, last = ops(write_onnx(MAP, nodes, WEIGHTS))
    assert [entry.family for entry in (first, conv, last)] == ["quantize", "conv-1x1", "dequantize"]
    assert (conv.integer, conv.activation) == (True, "relu")
    assert (conv.input_bytes, conv.weight_bytes, conv.output_bytes) == (288, 64, 288)


def test_a_relu_between_its_own_pairs_is_still_fused(write_onnx: WriteOnnx) -> None:
    nodes = (
        f"{IN} c = Conv (d, wf) p = QuantizeLinear (c, s, z) e = DequantizeLinear (p, s, z) r = Relu (e)"
        "o = QuantizeLinear (r, s, z) y = DequantizeLinear (o, s, z)"
    )
    found = ops(write_onnx(MAP, nodes, WEIGHTS))
    assert [entry.op for entry in found] == ["QuantizeLinear", "Conv", "DequantizeLinear"]
    assert found[1].activation == "relu"


def test_a_convolution_whose_output_stays_float(write_onnx: WriteOnnx) -> None:
    found = ops(write_onnx(MAP, f"{IN} y = Conv (d, wf)", WEIGHTS))
    assert [(entry.op, entry.integer) for entry in found] == [
        ("QuantizeLinear", False), ("DequantizeLinear", False), ("Conv", False),
    ]  # fmt: skip


def test_a_hard_swish_between_integers_is_an_island(write_onnx: WriteOnnx) -> None:
    nodes = (
        f"{IN} c = Conv (d, wf) p = QuantizeLinear (c, s, z) e = DequantizeLinear (p, s, z) h = HardSwish (e)"
        "o = QuantizeLinear (h, s, z) i = DequantizeLinear (o, s, z) k = Conv (i, wf)"
        "l = QuantizeLinear (k, s, z) y = DequantizeLinear (l, s, z)"
    )
    found = ops(write_onnx(MAP, nodes, WEIGHTS))
    assert [entry.op for entry in found] == [
        "QuantizeLinear", "Conv", "DequantizeLinear", "HardSwish", "QuantizeLinear", "Conv", "DequantizeLinear",
    ]  # fmt: skip
    assert [entry.integer for entry in found] == [False, True, False, False, False, True, False]


def test_onnx_runtimes_own_integer_operators(write_onnx: WriteOnnx) -> None:
    nodes = (
        "q = QuantizeLinear (x, s, z) c = QLinearConv (q, s, z, w, s, v, s, z)"
        "a = com.microsoft.QLinearAdd (c, s, z, q, s, z, s, z) y = DequantizeLinear (a, s, z)"
    )
    found = ops(write_onnx(MAP, nodes, {**WEIGHTS, "v": np.int8(0)}))
    assert [(entry.op, entry.integer) for entry in found] == [
        ("QuantizeLinear", False), ("Conv", True), ("Add", True), ("DequantizeLinear", False),
    ]  # fmt: skip
    assert (found[1].macs, found[2].input_elements) == (36 * 64, 2 * 288)


def test_four_bit_weights(write_onnx: WriteOnnx) -> None:
    node = "y = com.microsoft.MatMulNBits <K = 32, N = 16, bits = 4, block_size = 32> (x, w, s)"
    weights = {"w": np.ones((16, 1, 16), np.uint8), "s": np.ones(16, np.float32)}
    (only,) = ops(write_onnx("(float[1,5,32] x) => (float[1,5,16] y)", node, weights))
    assert (only.family, only.macs) == ("matmul-tokens", 5 * 32 * 16)
    assert only.weight_bytes < 32 * 16


def test_a_weight_quantized_alone_leaves_the_product_float(write_onnx: WriteOnnx) -> None:
    (only,) = ops(write_onnx(MAP, "wf = DequantizeLinear (w, s) y = Conv (x, wf)", WEIGHTS))
    assert (only.integer, only.element_bytes, only.weight_element_bytes) == (False, 4, 1)
