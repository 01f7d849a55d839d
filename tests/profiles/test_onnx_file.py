"""Reading an ONNX file without the onnx package, against what the onnx package wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.errors import ModelFileError
from edgekd.profiles import read_summary

MakeOnnx = Callable[..., Path]


def test_summary_of_a_small_file(make_onnx: MakeOnnx) -> None:
    path = make_onnx(opset=13)
    summary = read_summary(path)
    assert summary.opset == 13
    assert dict(summary.operators) == {"Flatten": 1, "MatMul": 1, "Relu": 1}
    assert (summary.precision, summary.size_bytes, summary.external) == ("fp32", path.stat().st_size, ())


def test_half_precision_weights(make_onnx: MakeOnnx) -> None:
    assert read_summary(make_onnx(dtype=TensorProto.FLOAT16)).precision == "fp16"


def test_quantized_operators_make_it_int8(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.float32(0.1), "scale"),
        numpy_helper.from_array(np.uint8(128), "zero"),
        numpy_helper.from_array(np.zeros(1000, np.float32), "ballast"),
    ]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:], constants)
    opsets = [helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "q.onnx")
    summary = read_summary(tmp_path / "q.onnx")
    assert (summary.precision, summary.opset) == ("int8", 17)


@pytest.mark.parametrize(
    ("node", "precision"),
    [
        (
            "y = com.microsoft.MatMulNBits <K = 32, N = 16, bits = 4, block_size = 32> (x, w, s)",
            "int4 weights",
        ),
        (
            "y = com.microsoft.MatMulNBits <K = 32, N = 16, bits = 8, block_size = 32> (x, w, s)",
            "int8 weights",
        ),
        ("y = com.microsoft.MatMulNBits <K = 32, N = 16, block_size = 32> (x, w, s)", "int4 weights"),
        ("f = DequantizeLinear (w, s) y = MatMul (x, f)", "int8 weights"),
        ("q = QuantizeLinear (x, s, z) f = DequantizeLinear (q, s, z) y = MatMul (f, w)", "int8"),
    ],
)
def test_integers_as_weights_alone_are_called_so(tmp_path: Path, node: str, precision: str) -> None:
    text = f'<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> net (float[5,32] x) => (y) {{ {node} }}'
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((32, 16), np.uint8), "w"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1), "s"))
    model.graph.initializer.append(numpy_helper.from_array(np.uint8(0), "z"))
    onnx.save(model, tmp_path / "w.onnx")
    assert read_summary(tmp_path / "w.onnx").precision == precision


def test_external_data_count_towards_the_size_and_must_be_there(make_onnx: MakeOnnx) -> None:
    path = make_onnx(external=True)
    data = path.with_name("tiny.onnx.data")
    summary = read_summary(path)
    assert summary.external == ("tiny.onnx.data",)
    assert summary.size_bytes == path.stat().st_size + data.stat().st_size
    data.unlink()
    with pytest.raises(
        ModelFileError, match=r"tiny\.onnx: its external data is missing; got 'tiny\.onnx\.data'"
    ):
        read_summary(path)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95, 0.999])
def test_a_truncated_file(make_onnx: MakeOnnx, share: float) -> None:
    path = make_onnx()
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelFileError, match="truncated, or not an ONNX file") as caught:
        read_summary(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"hello, I am a text file\n" * 40, b"PK\x03\x04" * 100, b"\x00" * 64, b"\x80" * 64]
)
def test_a_file_of_another_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="truncated, or not an ONNX file"):
        read_summary(path)


def test_random_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    path = tmp_path / "noise.onnx"
    for _ in range(200):
        path.write_bytes(
            generator.integers(0, 256, int(generator.integers(1, 300)), dtype=np.uint8).tobytes()
        )
        with pytest.raises(ModelFileError):
            read_summary(path)


def test_empty_missing_and_folder(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(ModelFileError, match="is empty"):
        read_summary(tmp_path / "empty.onnx")
    with pytest.raises(ModelFileError, match="cannot be read; got 'No such file"):
        read_summary(tmp_path / "none.onnx")
    with pytest.raises(ModelFileError, match="cannot be read; got 'Is a directory'"):
        read_summary(tmp_path)
