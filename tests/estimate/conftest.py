"""Small nets as ONNX files, and a board that only a few lines of YAML describe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

# Output channels, kernel, stride, groups.
Layer = tuple[int, int, int, int]
MOBILE: tuple[Layer, ...] = (
    (32, 3, 2, 1), (32, 3, 1, 32), (64, 1, 1, 1), (64, 3, 2, 64), (128, 1, 1, 1), (128, 3, 1, 128), (128, 1, 1, 1),
)  # fmt: skip
DENSE: tuple[Layer, ...] = ((64, 7, 2, 1), (64, 3, 1, 1), (256, 3, 2, 1), (256, 3, 1, 1))

Net = Callable[..., Path]


@pytest.fixture
def conv_net(tmp_path: Path) -> Net:
    """Writes convolutions in a row; returns the file."""
    import onnx
    from onnx import TensorProto, helper

    def write(
        layers: Sequence[Layer] = MOBILE, *, size: int = 224, name: str = "net", sparse: bool = False
    ) -> Path:
        nodes, weights, channels, last = [], [], 3, "x"
        for number, (out, kernel, stride, groups) in enumerate(layers):
            values = np.ones((out, channels // groups, kernel, kernel), np.float32)
            if sparse and channels // groups % 4 == 0:
                values.reshape(out, -1, 4, kernel, kernel)[:, :, 2:] = 0
            weights.append(
                helper.make_tensor(f"w{number}", TensorProto.FLOAT, values.shape, values.tobytes(), raw=True)
            )
            nodes.append(
                helper.make_node(
                    "Conv",
                    [last, f"w{number}"],
                    [f"y{number}"],
                    kernel_shape=[kernel] * 2,
                    strides=[stride] * 2,
                    pads=[kernel // 2] * 4,
                    group=groups,
                )
            )
            last, channels = f"y{number}", out
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, size, size))]
        outputs = [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)]
        graph = helper.make_graph(nodes, "net", inputs, outputs, weights)
        path = tmp_path / f"{name}.onnx"
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path)
        )
        return path

    return write


@pytest.fixture
def board(tmp_path: Path) -> Callable[..., str]:
    """Writes a device file of a few facts; returns its path."""

    def write(name: str = "my-board", **facts: object) -> str:
        units = {"cpu_cores": "cores", "cpu_clock_max": "GHz", "mem_bw_theoretical": "GB/s"}
        lines = [
            f"  - {{key: {key}, value: {value}, unit: '{units.get(key.removesuffix('_2'), '')}', source: its label}}"
            for key, value in facts.items()
        ]
        head = f"name: {name}\narch: aarch64\ncores: 4\nfacts:\n"
        path = tmp_path / f"{name}.yaml"
        path.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
        return str(path)

    return write
