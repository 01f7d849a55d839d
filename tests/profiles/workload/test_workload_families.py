"""Family and counts of single operators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekd.profiles.estimation.operators import FAMILIES
from edgekd.profiles.estimation.workload import read_workload

WriteOnnx = Callable[..., Path]


@pytest.mark.parametrize(
    ("weight", "options", "size", "family", "macs"),
    [
        ((16, 8, 1, 1), "", 6, "conv-1x1", 36 * 16 * 8),
        ((16, 8, 3, 3), "", 4, "conv-dense-3x3", 16 * 16 * 8 * 9),
        ((16, 8, 3, 3), "strides = [2, 2]", 2, "conv-dense-other", 4 * 16 * 8 * 9),
        ((16, 8, 3, 3), "dilations = [2, 2]", 2, "conv-dense-other", 4 * 16 * 8 * 9),
        ((8, 1, 3, 3), "group = 8", 4, "conv-depthwise", 16 * 8 * 9),
        ((16, 4, 3, 3), "group = 2", 4, "conv-grouped", 16 * 16 * 4 * 9),
    ],
)
def test_convolutions(
    write_onnx: WriteOnnx, weight: tuple[int, ...], options: str, size: int, family: str, macs: int
) -> None:
    signature = f"(float[1,8,6,6] x) => (float[1,{weight[0]},{size},{size}] y)"
    node = f"y = Conv <{options}> (x, w)" if options else "y = Conv (x, w)"
    (only,) = read_workload(write_onnx(signature, node, {"w": np.ones(weight, np.float32)})).operators
    assert (only.family, only.macs, only.weight_elements) == (family, macs, np.prod(weight))


def test_a_transposed_convolution_counts_at_its_input(write_onnx: WriteOnnx) -> None:
    node = "y = ConvTranspose <strides = [2, 2]> (x, w)"
    weights = {"w": np.ones((8, 4, 2, 2), np.float32)}
    path = write_onnx("(float[1,8,6,6] x) => (float[1,4,12,12] y)", node, weights)
    (only,) = read_workload(path).operators
    assert (only.family, only.macs, only.height) == ("deconv", 36 * 8 * 4 * 4, 12)


def test_one_row_is_a_gemm_and_many_are_tokens(write_onnx: WriteOnnx) -> None:
    weights = {"w": np.ones((16, 4), np.float32)}
    vector = write_onnx("(float[1,16] x) => (float[1,4] y)", "y = Gemm (x, w)", weights)
    assert read_workload(vector).operators[0].family == "gemm"
    rows = write_onnx("(float[7,16] x) => (float[7,4] y)", "y = Gemm (x, w)", weights)
    assert read_workload(rows, batch=7).operators[0].family == "gemm"
    tokens = write_onnx("(float[1,7,16] x) => (float[1,7,4] y)", "y = MatMul (x, w)", weights)
    assert read_workload(tokens).operators[0].family == "matmul-tokens"


def test_a_1x1_convolution_at_one_position_is_a_gemm(write_onnx: WriteOnnx) -> None:
    node = "p = GlobalAveragePool (x) y = Conv (p, w)"
    path = write_onnx(
        "(float[1,8,6,6] x) => (float[1,4,1,1] y)", node, {"w": np.ones((4, 8, 1, 1), np.float32)}
    )
    assert [operator.family for operator in read_workload(path).operators] == ["global-pool", "gemm"]


def test_embeddings_read_rows_and_not_the_table(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        "(int64[1,7] input_ids) => (float[1,7,16] y)",
        "y = Gather (table, input_ids)",
        {"table": np.ones((999, 16), np.float32)},
    )
    (only,) = read_workload(path).operators
    assert (only.family, only.weight_elements, only.input_elements) == ("embedding", 7 * 16, 7)


@pytest.mark.parametrize(
    ("node", "family"),
    [
        ("y = Softmax (x)", "softmax"), ("y = Tanh (x)", "activation-expensive"), ("y = Abs (x)", "elementwise"),
        ("y = InstanceNormalization (x, s, s)", "norm"), ("y = CumSum (x, axis)", "global-pool"),
        ("y = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x)", "pool"), ("y = Det (x)", "other"),
        ("y = Transpose <perm = [0, 1, 3, 2]> (x)", "transpose"), ("y = Concat <axis = 1> (x, x)", "concat"),
    ],
)  # fmt: skip
def test_other_families(write_onnx: WriteOnnx, node: str, family: str) -> None:
    weights = {"s": np.ones(8, np.float32), "axis": np.int64(1)}
    (only,) = read_workload(write_onnx("(float[1,8,6,6] x) => (float y)", node, weights)).operators
    assert only.family == family and family in FAMILIES


def test_half_precision_moves_half_the_bytes(write_onnx: WriteOnnx) -> None:
    weights = {"w": np.ones((16, 16), np.float16)}
    workload = read_workload(
        write_onnx("(float16[1,5,16] x) => (float16[1,5,16] y)", "y = MatMul (x, w)", weights)
    )
    assert workload.precision == "fp16"
    (only,) = workload.operators
    assert (only.input_bytes, only.weight_bytes) == (5 * 16 * 2, 16 * 16 * 2)


def test_sizes_that_depend_on_data_are_guessed_and_said(write_onnx: WriteOnnx) -> None:
    path = write_onnx("(float[1,900] x) => (int64[2,n] y)", "y = NonZero (x)")
    workload = read_workload(path)
    assert workload.operators[0].dynamic and workload.operators[0].output_elements == 200
    assert "taken as 100" in workload.notes[0]


def test_a_recurrent_layer_whose_first_output_nobody_wants(write_onnx: WriteOnnx) -> None:
    node = '"", y = GRU <hidden_size = 4> (x, w, r)'
    weights = {"w": np.ones((1, 12, 8), np.float32), "r": np.ones((1, 12, 4), np.float32)}
    path = write_onnx("(float[5,1,8] x) => (float[1,1,4] y)", node, weights)
    (only,) = read_workload(path, batch=5).operators
    assert (only.family, only.macs) == ("recurrent", 5 * 12 * (8 + 4))


def test_a_product_of_two_vectors(write_onnx: WriteOnnx) -> None:
    path = write_onnx("(float[3] x, float[3] z) => (float y)", "y = MatMul (x, z)")
    (only,) = read_workload(path, batch=3).operators
    assert (only.family, only.macs) == ("attention", 3)


def test_a_shape_that_onnx_does_not_infer_is_the_inputs(write_onnx: WriteOnnx) -> None:
    """onnx infers none for a dropout's mask, nor for some functions."""
    signature = "(float[1,8,6,6] x) => (float[1,8,6,6] y)"
    nodes = "d, mask = Dropout (x) n = GroupNormalization <num_groups = 2> (d, s, b) y = Relu (n)"
    eight = np.ones(8, np.float32)
    found = read_workload(write_onnx(signature, nodes, {"s": eight, "b": eight}, opset=21)).operators
    assert [(entry.op, entry.output_elements) for entry in found] == [
        ("GroupNormalization", 288), ("Relu", 288),
    ]  # fmt: skip
