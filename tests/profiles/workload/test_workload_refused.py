"""Files that have no workload: one line each, naming the file and what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import MissingDependencyError, ModelFileError
from edgekd.profiles.estimation.workload import read_workload

WriteOnnx = Callable[..., Path]
LINEAR = ("(float[1,8] x) => (float[1,4] y)", "y = MatMul (x, w)", {"w": np.ones((8, 4), np.float32)})


def refused(path: Path, pattern: str, **options: object) -> None:
    with pytest.raises(ModelFileError, match=pattern) as caught:
        read_workload(path, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_truncated(write_onnx: WriteOnnx) -> None:
    path = write_onnx(*LINEAR)
    path.write_bytes(path.read_bytes()[:-20])
    refused(path, r"net\.onnx: truncated, or not an ONNX file")


def test_missing_and_not_onnx(tmp_path: Path) -> None:
    refused(tmp_path / "none.onnx", "cannot be read")
    (tmp_path / "text.onnx").write_text("not a model at all, not in the least")
    refused(tmp_path / "text.onnx", "truncated, or not an ONNX file")


def test_open_dimensions_need_a_shape(write_onnx: WriteOnnx) -> None:
    signature = "(float[n,3,h,w] x) => (float[n,3,h,w] y)"
    path = write_onnx(signature, "y = Relu (x)")
    refused(path, r"input 'x': open dimensions besides the batch; got '3, h, w'; give the dimensions")
    assert read_workload(path, batch=2, shape=(3, 4, 5)).operators[0].input_elements == 2 * 60
    refused(path, "another shape", shape=(4, 4, 5))


def test_a_fixed_batch(write_onnx: WriteOnnx) -> None:
    refused(write_onnx(*LINEAR), "the batch is fixed in the file; got 2; allowed: 1", batch=2)
    with pytest.raises(ValueError, match="batch must be at least 1"):
        read_workload(write_onnx(*LINEAR), batch=0)


def test_an_unknown_operator(write_onnx: WriteOnnx) -> None:
    refused(
        write_onnx(LINEAR[0], "y = Matmull (x)"),
        r"node 'n0_Matmull': no operator of ONNX opset 17; got 'Matmull'",
    )


def test_an_operator_of_an_unknown_domain(write_onnx: WriteOnnx) -> None:
    path = write_onnx(LINEAR[0], "y = somebody.else.Magic (x)")
    refused(
        path, r"node 'n0_Magic': an operator whose cost edgekd does not know; got 'somebody\.else\.Magic'"
    )


def test_weights_that_do_not_fit(write_onnx: WriteOnnx) -> None:
    path = write_onnx(LINEAR[0], LINEAR[1], {"w": np.ones((9, 4), np.float32)})
    refused(path, r"node 'n0_MatMul': MatMul does not fit its inputs")


def test_a_value_that_nobody_writes(write_onnx: WriteOnnx) -> None:
    refused(write_onnx(LINEAR[0], "y = Add (x, ghost)"), "reads a value that nobody writes; got 'ghost'")


def test_without_the_onnx_package(write_onnx: WriteOnnx, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_onnx(*LINEAR)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match="pip install onnx"):
        read_workload(path)
