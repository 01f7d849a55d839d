"""2:4 weights are seen in the file, also beside it; nothing is read from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.external_data_helper import set_external_data

from edgekd.profiles.estimation.light import read_light
from edgekd.profiles.estimation.workload import read_workload

WriteOnnx = Callable[..., Path]
GENERATOR = np.random.default_rng(0)


def sparse(shape: tuple[int, ...], axis: int) -> np.ndarray:
    """Random, the first two of every four along ``axis`` zero."""
    weight = GENERATOR.normal(size=shape).astype(np.float32)
    moved = np.moveaxis(weight, axis, -1)
    moved[..., 0::4] = moved[..., 1::4] = 0
    return weight


def is_sparse(path: Path) -> bool:
    return read_workload(path).operators[-1].sparse_2to4


CONV = ("(float[1,16,6,6] x) => (float[1,8,4,4] y)", "y = Conv (x, w)")
LINEAR = ("(float[1,5,16] x) => (float[1,5,8] y)", "y = MatMul (x, w)")


@pytest.mark.parametrize(("axis", "wanted"), [(1, True), (0, False)])
def test_of_a_convolution_along_its_input_channels(write_onnx: WriteOnnx, axis: int, wanted: bool) -> None:
    assert is_sparse(write_onnx(*CONV, {"w": sparse((8, 16, 3, 3), axis)})) is wanted


@pytest.mark.parametrize(("axis", "wanted"), [(0, True), (1, False)])
def test_of_a_product_along_its_rows(write_onnx: WriteOnnx, axis: int, wanted: bool) -> None:
    assert is_sparse(write_onnx(*LINEAR, {"w": sparse((16, 8), axis)})) is wanted


def test_of_a_transposed_weight(write_onnx: WriteOnnx) -> None:
    nodes = "t = Transpose <perm = [1, 0]> (w) y = MatMul (x, t)"
    assert is_sparse(write_onnx(LINEAR[0], nodes, {"w": sparse((8, 16), 1)}))
    assert not is_sparse(write_onnx(LINEAR[0], nodes, {"w": sparse((8, 16), 0)}))


def test_of_integers(write_onnx: WriteOnnx) -> None:
    weight = (sparse((8, 16, 3, 3), 1) * 40).astype(np.int8)
    nodes = "f = DequantizeLinear (w, s) y = Conv (x, f)"
    assert is_sparse(write_onnx(CONV[0], nodes, {"w": weight, "s": np.float32(0.1)}))


def test_beside_the_file_and_nowhere_else(write_onnx: WriteOnnx, tmp_path: Path) -> None:
    path = write_onnx(*CONV, {"w": sparse((8, 16, 3, 3), 1)})
    model = onnx.load(path)
    (tensor,) = model.graph.initializer
    folder = tmp_path / "inside"
    folder.mkdir()
    for location, wanted in (("weights.bin", True), ("../outside.bin", False)):
        (folder / location).write_bytes(tensor.raw_data)
        moved = onnx.ModelProto()
        moved.CopyFrom(model)
        set_external_data(moved.graph.initializer[0], location)
        moved.graph.initializer[0].ClearField("raw_data")
        (folder / "net.onnx").write_bytes(moved.SerializeToString())
        assert is_sparse(folder / "net.onnx") is wanted


def test_of_a_weight_that_was_left_in_the_file(write_onnx: WriteOnnx) -> None:
    """More than 64 KiB are never parsed."""
    signature = "(float[1,256,6,6] x) => (float[1,128,4,4] y)"
    for axis, wanted in ((1, True), (0, False)):
        path = write_onnx(signature, CONV[1], {"w": sparse((128, 256, 3, 3), axis)})
        light, places = read_light(path)
        assert len(light) < 500 and list(places) == ["w"]
        assert is_sparse(path) is wanted
