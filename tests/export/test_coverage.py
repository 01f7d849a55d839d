"""The gate counts what the runtime really runs, and names the first node that broke the chain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from edgekd.errors import CoverageError, ModelFileError
from edgekd.export.coverage import check_coverage, require_coverage
from edgekd.export.explicit import check_explicit
from edgekd.export.write import export_quantized
from edgekd.quant.qat import prepare_qat
from edgekd.quant.schemes import SCHEMES


@pytest.mark.parametrize("rule", ["x86", "arm"])
def test_every_layer_runs_in_integers_under_both_rules(case: Any, rule: Any) -> None:
    report = check_coverage(case.file.path, rule)
    layers = 16 if case.name == "test_resnet" else 18
    assert (report.integer_ops, report.float_ops, report.coverage) == (layers, 0, 1.0), report.float_nodes
    assert report.mac_coverage == 1.0 and report.batch_norms == 0 and report.first_break is None
    require_coverage(report, 1.0, "file")
    assert report.leftover_qdq == 0, "SiLU and squeeze-excite run in integers as well"


def test_a_float_file_has_no_coverage(resnet: Any) -> None:
    report = check_coverage(resnet.float_file.path)
    assert (report.integer_ops, report.float_ops, report.coverage) == (0, 16, 0.0)
    assert report.mac_coverage == 0.0
    assert report.first_break == "conv1.0/Conv: its input comes from the model's input without Q/DQ"


def test_int8_activations_fuse_by_the_arm_rule_only(efficientnet: Any, tmp_path: Path) -> None:
    path = tmp_path / "s8s8.onnx"
    export_quantized(
        efficientnet.model.with_scheme(SCHEMES["s8s8"]), torch.from_numpy(efficientnet.inputs), path, opset=17
    )
    x86, arm = check_coverage(path, "x86"), check_coverage(path, "arm")
    assert arm.coverage > 0.9 > 0.5 > x86.coverage
    assert x86.first_break is not None and "its activations are int8" in x86.first_break
    assert arm.float_nodes == ["classifier/Gemm: its bias is float, not int32"]


def test_a_signed_range_leaves_a_relu_in_the_way(resnet: Any, tmp_path: Path) -> None:
    path = tmp_path / "s8s8.onnx"
    export_quantized(
        resnet.model.with_scheme(SCHEMES["s8s8"]), torch.from_numpy(resnet.inputs), path, opset=17
    )
    assert "its output goes to Relu conv1.2/Relu" in str(check_coverage(path, "arm").first_break)


def broken(resnet: Any, path: Path, layer: str, how: str) -> Path:
    """The quantized file with the chain cut at one layer."""
    proto = onnx.load(str(resnet.file.path))
    graph = proto.graph
    producers = {name: node for node in graph.node for name in node.output}
    node = next(n for n in graph.node if n.name == f"{layer}/Conv")
    reader = next(n for n in graph.node if node.output[0] in n.input)
    if how == "input":  # past Q and DQ of its own input
        quantize = producers[producers[node.input[0]].input[0]]
        node.input[0] = quantize.input[0]
    elif how == "output":
        position = list(graph.node).index(node) + 1
        graph.node.insert(position, helper.make_node("Tanh", [node.output[0]], ["bent"], name="bend/Tanh"))
        reader.input[0] = "bent"
    elif how == "weight":
        node.input[1] = as_float(graph, producers[node.input[1]])
    onnx.save(proto, str(path))
    return path


def as_float(graph: Any, dequantize: Any) -> str:
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    values, scale = constants[dequantize.input[0]], constants[dequantize.input[1]]
    graph.initializer.append(
        numpy_helper.from_array(values * scale.reshape(-1, 1, 1, 1).astype("float32"), "float.weight")
    )
    return "float.weight"


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("input", "its input comes from"),
        ("output", "its output goes to Tanh bend/Tanh before it is quantized"),
        ("weight", "its weight is stored in float"),
    ],
)
def test_a_broken_chain_names_the_node_and_the_reason(
    resnet: Any, how: str, reason: str, tmp_path: Path
) -> None:
    path = broken(resnet, tmp_path / "broken.onnx", "layer2.0.conv2", how)
    report = check_coverage(path)
    found = {node.partition(": ")[0]: node.partition(": ")[2] for node in report.float_nodes}
    assert reason in found["layer2.0.conv2/Conv"]
    assert report.integer_ops + report.float_ops == 16 and report.float_ops == len(found)
    first = "layer2.0.conv1/Conv" if how == "input" else "layer2.0.conv2/Conv"
    assert str(report.first_break).startswith(f"{first}: "), "its neighbour loses its only reader as well"
    assert len(found) == (2 if how == "input" else 1)
    assert report.mac_coverage is not None and 0.5 < report.mac_coverage < 1.0
    require_coverage(report, 0.85, "file")
    with pytest.raises(CoverageError, match=rf"{len(found)} of 16 .* the first is {first}") as caught:
        require_coverage(report, 0.95, "model.onnx")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("model.onnx: ")
    on_purpose = [name.removesuffix("/Conv") for name in found]
    require_coverage(report, 1.0, "a layer that accuracy put back to float is no fault", chosen=on_purpose)
    with pytest.raises(CoverageError, match=rf"{len(found)} of 16"):
        require_coverage(report, 0.95, "model.onnx", chosen=["layer1.0.conv1"])


def test_products_of_activations_are_no_layers(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["input", "input"], ["logits"], name="attention/MatMul")]
    shape = [None, 4, 4]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, shape)],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, str(tmp_path / "m.onnx"))
    report = check_coverage(tmp_path / "m.onnx")
    assert (report.integer_ops, report.float_ops, report.coverage) == (0, 0, 1.0)


@pytest.mark.parametrize("beside", [False, True], ids=["inside", "external-data"])
def test_nodes_without_names_and_weights_beside_the_file(tmp_path: Path, beside: bool) -> None:
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["logits"], transB=1),
    ]
    values = np.random.default_rng(0).normal(size=(640,)).astype(np.float32)
    weights = [values[:432].reshape(16, 3, 3, 3), values[432:592].reshape(10, 16)]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(array, name) for array, name in zip(weights, ("w", "v"), strict=True)],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "m.onnx"
    onnx.save_model(proto, str(path), save_as_external_data=beside, location="m.data", size_threshold=0)
    for report in (check_coverage(path), check_explicit(path)):
        assert (report.integer_ops, report.float_ops) == (0, 2)
        assert [entry.partition(":")[0] for entry in report.float_nodes] == ["c", "logits"]


def test_a_layer_over_a_constant_is_float_and_counted(tmp_path: Path) -> None:
    """A code of each sample's place in the batch; its projection is done at every run, in float."""

    class Coded(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.code = torch.nn.Conv2d(3, 64, 3, padding=1), torch.nn.Conv2d(2, 64, 1)
            self.head = torch.nn.Linear(64, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            ones = torch.ones((x.shape[0], 8, 8), device=x.device)
            code = torch.stack((ones.cumsum(0).sin(), ones.cumsum(2).cos()), 1)
            return self.head(torch.relu(self.stem(x) + self.code(code)).mean((2, 3)))

    torch.manual_seed(0)
    x = torch.randn(4, 3, 8, 8)
    model = prepare_qat(Coded().eval(), x[:2], SCHEMES["u8s8"])
    model.calibrate([x])
    model.set_phase("frozen")
    export_quantized(model.eval(), x[:2], tmp_path / "q.onnx", opset=20)
    report = check_coverage(tmp_path / "q.onnx")
    layers, code = 8 * 8 * 64 * 27 + 64 * 4, 8 * 8 * 64 * 2
    assert report.float_ops == 1 and report.float_nodes[0].startswith("code")
    assert report.mac_coverage == pytest.approx(layers / (layers + code))


def test_a_truncated_file_is_one_line(resnet: Any, tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(resnet.file.path.read_bytes()[:9000])
    with pytest.raises(ModelFileError) as caught:
        check_coverage(path)
    assert "\n" not in str(caught.value)


def test_nothing_is_printed(resnet: Any, capfd: pytest.CaptureFixture[str]) -> None:
    check_coverage(resnet.file.path)
    assert capfd.readouterr() == ("", "")
