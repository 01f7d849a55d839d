"""What runtimes fuse is one operator; what they cannot is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from edgekd.profiles.estimation.operators import Operator
from edgekd.profiles.estimation.workload import read_workload

WriteOnnx = Callable[..., Path]
MAP = "(float[1,8,6,6] x) => (float[1,8,6,6] y)"
TOKENS = "(float[1,5,16] x) => (float[1,5,16] y)"
POINT = np.ones((8, 8, 1, 1), np.float32)
EIGHT = np.ones(8, np.float32)


def ops(path: Path) -> list[Operator]:
    return list(read_workload(path).operators)


def kinds(path: Path) -> list[str]:
    return [operator.op for operator in ops(path)]


def scalars(**values: float) -> Mapping[str, np.ndarray]:
    return {name: np.float32(value) for name, value in values.items()}


def test_batch_norm_and_relu_belong_to_the_convolution(write_onnx: WriteOnnx) -> None:
    norm = "c = Conv (x, w) b = BatchNormalization (c, s, s, s, s) y = Relu (b)"
    (only,) = ops(write_onnx(MAP, norm, {"w": POINT, "s": EIGHT}))
    assert (only.op, only.activation, only.weight_elements) == ("Conv", "relu", 64 + 8)


def test_batch_norm_after_an_addition_stays(write_onnx: WriteOnnx) -> None:
    nodes = "c = Conv (x, w) a = Add (c, x) b = BatchNormalization (a, s, s, s, s) y = Relu (b)"
    found = ops(write_onnx(MAP, nodes, {"w": POINT, "s": EIGHT}))
    assert [operator.op for operator in found] == ["Conv", "Add", "BatchNormalization"]
    assert found[2].activation == "relu"
    assert found[1].fusable and not found[0].fusable


def test_an_addition_of_two_maps_that_others_read_is_not_fusable(write_onnx: WriteOnnx) -> None:
    nodes = "c = Conv (x, w) a = Add (c, x) y = Mul (a, c)"
    assert not any(operator.fusable for operator in ops(write_onnx(MAP, nodes, {"w": POINT})))


def test_padding_belongs_to_the_window(write_onnx: WriteOnnx) -> None:
    nodes = "p = Pad (x, pads) y = Conv (p, w)"
    weights = {"w": np.ones((8, 8, 3, 3), np.float32), "pads": np.int64([0, 0, 1, 1, 0, 0, 1, 1])}
    (only,) = ops(write_onnx(MAP, nodes, weights))
    assert (only.family, only.input_elements, only.macs) == ("conv-dense-3x3", 8 * 36, 36 * 8 * 8 * 9)


def test_reflected_padding_is_copied(write_onnx: WriteOnnx) -> None:
    nodes = 'p = Pad <mode = "reflect"> (x, pads) y = Conv (p, w)'
    weights = {"w": np.ones((8, 8, 3, 3), np.float32), "pads": np.int64([0, 0, 1, 1, 0, 0, 1, 1])}
    assert [operator.family for operator in ops(write_onnx(MAP, nodes, weights))] == [
        "copy",
        "conv-dense-3x3",
    ]


@pytest.mark.parametrize(
    ("nodes", "name"),
    [
        ("a = Div (x, r) e = Erf (a) o = Add (e, one) m = Mul (x, o) y = Mul (m, half)", "Gelu"),
        ("a = Div (x, r) e = Erf (a) o = Add (e, one) h = Mul (x, half) y = Mul (h, o)", "Gelu"),
        (
            "p = Pow (x, three) c = Mul (p, tiny) a = Add (x, c) s = Mul (a, r) t = Tanh (s)"
            "o = Add (t, one) h = Mul (x, half) y = Mul (h, o)",
            "Gelu",
        ),
        (
            "q = Mul (x, x) c = Mul (x, q) a = Add (x, c) t = Tanh (a)"
            "o = Add (t, one) m = Mul (x, o) y = Mul (m, half)",
            "Gelu",
        ),
        ("g = Sigmoid (x) y = Mul (x, g)", "Silu"),
        ("g = HardSigmoid (x) y = Mul (x, g)", "HardSwish"),
        ("a = Add (x, three) c = Clip (a, zero, six) m = Mul (x, c) y = Div (m, six)", "HardSwish"),
        ("a = Add (x, three) c = Clip (a, zero, six) d = Div (c, six) y = Mul (x, d)", "HardSwish"),
        ("a = Add (x, three) c = Clip (a, zero, six) y = Div (c, six)", "HardSigmoid"),
        ("s = Softplus (x) t = Tanh (s) y = Mul (x, t)", "Mish"),
    ],
)  # fmt: skip
def test_a_function_that_was_spelled_out_is_one_operator(
    write_onnx: WriteOnnx, nodes: str, name: str
) -> None:
    weights = scalars(r=2**0.5, one=1, half=0.5, three=3, zero=0, six=6, tiny=0.044715)
    (only,) = ops(write_onnx(MAP, nodes, weights))
    assert (only.op, only.family) == (name, "activation-expensive")
    assert (only.input_elements, only.output_elements, only.macs) == (288, 288, 0)


def test_a_tanh_of_another_map_is_no_gelu(write_onnx: WriteOnnx) -> None:
    nodes = "e = Exp (x) t = Tanh (e) o = Add (t, one) h = Mul (x, half) y = Mul (h, o)"
    assert len(ops(write_onnx(MAP, nodes, scalars(one=1, half=0.5)))) == 5


def test_a_gate_on_another_map_is_no_silu(write_onnx: WriteOnnx) -> None:
    nodes = "p = GlobalAveragePool (x) g = Sigmoid (p) y = Mul (x, g)"
    assert kinds(write_onnx(MAP, nodes)) == ["GlobalAveragePool", "Sigmoid", "Mul"]


def test_layer_norm_and_rms_norm(write_onnx: WriteOnnx) -> None:
    body = "p = Pow (d, two) v = ReduceMean <axes = [-1]> (p) e = Add (v, eps) q = Sqrt (e)"
    layer = (
        f"m = ReduceMean <axes = [-1]> (x) d = Sub (x, m) {body} n = Div (d, q) w = Mul (n, g) y = Add (w, g)"
    )
    weights = {**scalars(two=2, eps=1e-5), "g": np.ones(16, np.float32)}
    (only,) = ops(write_onnx(TOKENS, layer, weights))
    assert (only.op, only.family, only.input_elements, only.weight_elements) == (
        "LayerNormalization",
        "norm",
        80,
        16,
    )
    root = f"d = Identity (x) {body} n = Div (d, q) y = Mul (n, g)"
    assert kinds(write_onnx(TOKENS, root, weights)) == ["RMSNormalization"]


def test_a_bias_belongs_to_the_product_and_constants_cost_nothing(write_onnx: WriteOnnx) -> None:
    nodes = "t = Transpose <perm = [1, 0]> (w) m = MatMul (x, t) y = Add (m, b)"
    weights = {"w": np.ones((16, 16), np.float32), "b": np.ones(16, np.float32)}
    (only,) = ops(write_onnx(TOKENS, nodes, weights))
    assert (only.family, only.weight_elements, only.macs) == ("matmul-tokens", 256 + 16, 5 * 16 * 16)
    assert (only.height, only.channels_in, only.channels_out) == (5, 16, 16)


def test_computed_shapes_are_followed_and_free(write_onnx: WriteOnnx) -> None:
    nodes = (
        "s = Shape (x) b = Gather <axis = 0> (s, zero) u = Unsqueeze (b, axis) t = Concat <axis = 0> (u, rest)"
        "r = Reshape (x, t) y = Relu (r)"
    )
    weights = {"zero": np.int64(0), "axis": np.int64([0]), "rest": np.int64([-1])}
    found = ops(write_onnx("(float[1,8,6,6] x) => (float[1,288] y)", nodes, weights))
    assert [(operator.op, operator.input_elements) for operator in found] == [("Reshape", 0), ("Relu", 288)]


def test_a_factor_and_a_shift_of_each_channel_are_part_of_the_weights(write_onnx: WriteOnnx) -> None:
    nodes = "c = Conv (x, w) m = Mul (c, v) a = Add (m, v) y = Relu (a)"
    (only,) = ops(write_onnx(MAP, nodes, {"w": POINT, "v": np.ones((1, 8, 1, 1), np.float32)}))
    assert (only.op, only.activation, only.weight_elements) == ("Conv", "relu", 64 + 8)


def test_a_constant_map_is_no_shift_of_channels(write_onnx: WriteOnnx) -> None:
    nodes = "c = Conv (x, w) y = Add (c, v)"
    weights = {"w": POINT, "v": np.ones((1, 8, 6, 6), np.float32)}
    assert kinds(write_onnx(MAP, nodes, weights)) == ["Conv", "Add"]
    weights = {"w": POINT, "v": np.ones((6,), np.float32)}
    assert kinds(write_onnx(MAP, nodes, weights)) == ["Conv", "Add"]
