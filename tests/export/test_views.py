"""Reshapes in a row become one; the answers stay the same to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgekd.export.views import join_views
from edgekd.profiles.session import open_session


def chain(*steps: str | list[int], scale: float = 0.5) -> onnx.ModelProto:
    """``input (n, 4, 6)``, then ``flatten``, ``q`` (by ``scale`` / 0.5), ``dq`` or a Reshape to a shape."""
    constants = {"s": np.float32(0.5), "other": np.float32(scale), "z": np.uint8(3)}
    nodes, value = [], "input"
    for k, step in enumerate(steps):
        made = f"v{k}" if k + 1 < len(steps) else "output"
        if step == "flatten":
            nodes.append(helper.make_node("Flatten", [value], [made]))
        elif step in ("q", "q other"):
            by = "s" if step == "q" else "other"
            nodes.append(helper.make_node("QuantizeLinear", [value, by, "z"], [made]))
        elif step in ("dq", "dq other"):
            by = "s" if step == "dq" else "other"
            nodes.append(helper.make_node("DequantizeLinear", [value, by, "z"], [made]))
        else:
            constants[f"shape{k}"] = np.array(step)
            nodes.append(helper.make_node("Reshape", [value, f"shape{k}"], [made]))
        value = made
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 4, 6])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
         if any(name in node.input for node in nodes)],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        (([-1, 24], "flatten", [-1, 4, 6]), ["Reshape"]),
        (([-1, 8, 3], [0, 3, 8]), ["Reshape"]),
        (([0, 24], [0, 3, 8]), ["Reshape"]),
        (("flatten", [0, 3, 8]), ["Reshape"]),
        (([-1, 8, 3], [0, 3, -1]), ["Reshape", "Reshape"]),  # two sizes would be unknown
        (([-1, 4, 6], [-1, 0, 6]), ["Reshape"]),
        # Integers between, on one grid.
        (("q", "dq", [-1, 24], "q", "dq", [-1, 8, 3]), ["QuantizeLinear", "DequantizeLinear", "Reshape"]),
        (("q", [-1, 24], "dq", [-1, 8, 3]), ["QuantizeLinear", "DequantizeLinear", "Reshape"]),
        # Between two grids, or from float, something is rounded there.
        (("q other", "dq other", [-1, 24], "q", "dq", [-1, 8, 3]), None),
        (([-1, 24], "q", "dq", [-1, 8, 3]), None),
    ],
)
def test_the_last_view_is_left(
    steps: tuple[str | list[int], ...], left: list[str] | None, tmp_path: Path
) -> None:
    proto = chain(*steps, scale=0.3)
    x = 4 * torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0)).numpy()
    before = answer(proto, x, tmp_path / "before.onnx")
    kinds = [node.op_type for node in proto.graph.node]
    join_views(proto)
    found = [node.op_type for node in proto.graph.node]
    assert found == (kinds if left is None else left)
    np.testing.assert_array_equal(answer(proto, x, tmp_path / "after.onnx"), before)


def test_what_another_node_reads_as_well_stays(tmp_path: Path) -> None:
    proto = chain([-1, 24], [-1, 8, 3])
    proto.graph.node.append(helper.make_node("ReduceSum", ["v0"], ["sum"], keepdims=0))
    proto.graph.output.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, []))
    assert join_views(proto) == 0 and len(proto.graph.node) == 3


def answer(proto: onnx.ModelProto, x: np.ndarray, path: Path) -> np.ndarray:
    onnx.save(proto, path)
    return np.asarray(open_session(path).run(None, {"input": x})[0])
