"""Tiny ONNX files, made with the onnx package (which edgekd.profiles itself never imports)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

MakeOnnx = Callable[..., Path]


@pytest.fixture
def make_onnx(tmp_path: Path) -> MakeOnnx:
    """``make_onnx(name, dims, ...)``: flatten and multiply by a seeded matrix; returns the file's path."""

    def make(
        name: str = "tiny.onnx",
        dims: tuple[int | str, ...] = ("n", 3, 4, 4),
        classes: int = 5,
        opset: int = 17,
        operator: str = "Relu",
        dtype: int = TensorProto.FLOAT,
        external: bool = False,
        features: int = 48,
    ) -> Path:
        kind = helper.tensor_dtype_to_np_dtype(dtype)
        weight = np.random.default_rng(0).standard_normal((features, classes)).astype(kind)
        nodes = [
            helper.make_node("Flatten", ["x"], ["flat"], name="flatten"),
            helper.make_node("MatMul", ["flat", "weight"], ["product"], name="head"),
            helper.make_node(operator, ["product"], ["logits"], name="last"),
        ]
        graph = helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info("x", dtype, dims)],
            [helper.make_tensor_value_info("logits", dtype, [dims[0], classes])],
            [numpy_helper.from_array(weight, "weight")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        path = tmp_path / name
        if external:
            onnx.save(model, path, save_as_external_data=True, location=f"{name}.data", size_threshold=0)
        else:
            onnx.save(model, path)
        return path

    return make
