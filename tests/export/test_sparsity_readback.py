"""The pattern is counted in the integers that the file stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.errors import ExportError, ModelFileError, RecipeError
from edgekd.export.sparsity import check_sparsity
from edgekd.export.weights import load_onnx, stored_weights


def test_zeros_of_the_mask_are_zeros_of_the_integers(case: Any) -> None:
    stored = {w.layer: w for w in stored_weights(load_onnx(case.file.path))}
    modules = dict(case.model.model.named_modules())
    assert case.masked
    for name in case.masked:
        mask = modules[name].parametrizations["weight"][0].mask.numpy()
        values = stored[name].values
        assert values.dtype == np.int8
        assert not values[~mask].any() and values[mask].any()


def test_every_masked_layer_follows_the_pattern_in_both_files(case: Any) -> None:
    for file, integers in ((case.file, len(case.masked)), (case.float_file, 0)):
        report = check_sparsity(file.path, "2:4", layers=case.masked)
        assert report.violations == 0 and report.layers == len(case.masked)
        assert report.layers_total == len(list(stored_weights(load_onnx(file.path)))) > report.layers
        assert len(report.skipped) == report.layers_total - report.layers
        assert report.integer_layers == integers


def test_a_single_bad_group_is_found_and_named(resnet: Any, tmp_path: Path) -> None:
    proto = onnx.load(str(resnet.file.path))
    tensor = next(t for t in proto.graph.initializer if t.name == "layer2.0.conv1.weight_int8")
    values = numpy_helper.to_array(tensor).copy()
    values[3, 4:8, 1, 2] = [1, 0, 2, 3]
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(proto, str(tmp_path / "bad.onnx"))
    report = check_sparsity(tmp_path / "bad.onnx", "2:4", layers=resnet.masked)
    assert report.violations == 1 and report.violating == {"layer2.0.conv1": 1}
    assert report.layers == len(resnet.masked) - 1


def test_a_layer_that_is_not_in_the_file_is_named(resnet: Any) -> None:
    with pytest.raises(ExportError, match=r"not in the file.*layer1\.0\.conv9.*did you mean"):
        check_sparsity(resnet.file.path, "2:4", layers=["layer1.0.conv9"])


def test_without_names_every_layer_that_could_is_checked(efficientnet: Any) -> None:
    report = check_sparsity(efficientnet.file.path, "2:4")
    assert report.violations == 0 and report.layers == len(efficientnet.masked)
    reasons = " ".join(report.skipped)
    assert "depthwise" in reasons and "conv_stem: the image's pixels are its channels" in reasons
    dense = check_sparsity(efficientnet.file.path, "1:4")
    assert dense.violations > 0 and dense.violating


@pytest.mark.parametrize("layout", ["Gemm", "Gemm transB", "MatMul", "MatMul after Transpose"])
def test_the_reduction_axis_follows_the_layout(layout: str, tmp_path: Path) -> None:
    """(in, out) for MatMul and plain Gemm, (out, in) for transB and for a transposed initialiser."""
    good = np.zeros((8, 4), np.float32)  # (in, out): two of four inputs, every output
    good[[0, 2, 5, 7]] = 1.0
    swapped = layout in ("Gemm transB", "MatMul after Transpose")
    nodes = []
    weight = "w"
    if layout == "MatMul after Transpose":
        nodes.append(helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]))
        weight = "wt"
    attributes = {"transB": 1} if layout == "Gemm transB" else {}
    nodes.append(helper.make_node(layout.split()[0], ["x", weight], ["y"], name="fc/Gemm", **attributes))
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(np.ascontiguousarray(good.T if swapped else good), "w")],
    )  # fmt: skip
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    report = check_sparsity(path, "2:4")
    assert (report.layers, report.violations) == (1, 0)
    assert check_sparsity(path, "1:4").violations == 8


def test_files_of_others_are_understood(resnet: Any, tmp_path: Path) -> None:
    """QLinearConv, as the runtime itself writes it."""
    from edgekd.profiles.session import open_session

    open_session(resnet.file.path, optimized_to=tmp_path / "optimized.onnx")
    report = check_sparsity(tmp_path / "optimized.onnx", "2:4")
    assert report.layers == len(resnet.masked) and report.violations == 0


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08\x12\x07edgekd\x00\xff\xff"])
def test_a_file_that_is_no_model_is_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="not an ONNX file") as caught:
        check_sparsity(path, "2:4")
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelFileError, match="cannot be read"):
        check_sparsity(tmp_path / "missing.onnx", "2:4")


def test_a_truncated_file_is_one_line(resnet: Any, tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(resnet.file.path.read_bytes()[:5000])
    with pytest.raises(ModelFileError, match="truncated"):
        check_sparsity(path, "2:4")


def test_a_pattern_that_is_none_is_refused(resnet: Any) -> None:
    with pytest.raises(RecipeError):
        check_sparsity(resnet.file.path, "4:2")
