"""ONNX files written as text, and two real networks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

WriteOnnx = Callable[..., Path]
ExportNet = Callable[..., Path]


@pytest.fixture
def write_onnx(tmp_path: Path) -> WriteOnnx:
    """``write_onnx("(float[1,8] x) => (float[1,4] y)", "y = MatMul (x, w)", {"w": array})``"""

    def write(
        signature: str, nodes: str, weights: Mapping[str, np.ndarray] | None = None, opset: int = 17
    ) -> Path:
        imports = f'"" : {opset}, "com.microsoft" : 1, "somebody.else" : 1'
        model = onnx.parser.parse_model(
            f"<ir_version: 8, opset_import: [{imports}]> net {signature} {{ {nodes} }}"
        )
        for name, value in (weights or {}).items():
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        for position, node in enumerate(model.graph.node):
            node.name = f"n{position}_{node.op_type}"
        onnx.save(model, tmp_path / "net.onnx")
        return tmp_path / "net.onnx"

    return write


@pytest.fixture(scope="session")
def export_net(tmp_path_factory: pytest.TempPathFactory) -> ExportNet:
    """A timm network with random weights at 224 pixels, the batch left open or not; exported once."""
    done: dict[tuple[str, bool], Path] = {}

    def export(name: str, *, dynamic: bool = False) -> Path:
        if (name, dynamic) not in done:
            from edgekd.models.torchvision_shim import ensure_torchvision_ops

            ensure_torchvision_ops()
            import timm
            import torch

            module = timm.create_model(name, pretrained=False, exportable=True).eval()
            path = tmp_path_factory.mktemp("nets") / f"{name}.onnx"
            axes = {"input": {0: "batch"}, "output": {0: "batch"}} if dynamic else None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    module, (torch.zeros(1, 3, 224, 224),), str(path), dynamo=False, opset_version=17,
                    input_names=["input"], output_names=["output"], dynamic_axes=axes,
                )  # fmt: skip
            done[name, dynamic] = path
        return done[name, dynamic]

    return export
