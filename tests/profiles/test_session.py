"""Sessions, batches and random inputs on real ONNX Runtime."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.errors import ModelFileError
from edgekd.profiles import open_session, read_summary, run_batches
from edgekd.profiles.inputs import random_inputs

MakeOnnx = Callable[..., Path]


def expected(inputs: np.ndarray) -> np.ndarray:
    weight = np.random.default_rng(0).standard_normal((48, 5)).astype(np.float32)
    return np.maximum(inputs.reshape(len(inputs), -1) @ weight, 0)


@pytest.mark.parametrize("first", ["n", 1, 4])
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_batches_give_the_models_outputs_in_order(make_onnx: MakeOnnx, first: int | str, batch: int) -> None:
    inputs = np.random.default_rng(1).standard_normal((10, 3, 4, 4)).astype(np.float32)
    session = open_session(make_onnx(dims=(first, 3, 4, 4)))
    outputs = run_batches(session, inputs, batch)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, expected(inputs), rtol=1e-5, atol=1e-5)


def test_inputs_are_cast_to_the_models_type(make_onnx: MakeOnnx) -> None:
    inputs = np.random.default_rng(1).standard_normal((3, 3, 4, 4))
    outputs = run_batches(open_session(make_onnx(dtype=TensorProto.FLOAT16)), inputs)
    np.testing.assert_allclose(outputs, expected(inputs), rtol=0.05, atol=0.05)


def test_a_wrong_shape_is_one_line(make_onnx: MakeOnnx) -> None:
    session = open_session(make_onnx())
    message = r"input 'x': another shape; got \[3, 8, 8\]; allowed: \[3, 4, 4\] after the batch"
    with pytest.raises(ModelFileError, match=message):
        run_batches(session, np.zeros((2, 3, 8, 8), np.float32))


def test_a_model_that_fails_while_running_is_one_line(make_onnx: MakeOnnx) -> None:
    session = open_session(make_onnx(dims=("n", 3, "h", "w")))
    with pytest.raises(ModelFileError, match=r"failed on x \[1, 3, 5, 5\] float32") as caught:
        run_batches(session, np.zeros((1, 3, 5, 5), np.float32))
    assert "\n" not in str(caught.value)


def test_an_operator_that_the_runtime_lacks(make_onnx: MakeOnnx) -> None:
    with pytest.raises(ModelFileError, match=r"cannot load the file \(opset 17\).*NoSuchOperator") as caught:
        open_session(make_onnx(operator="NoSuchOperator"))
    assert "\n" not in str(caught.value)


def test_an_opset_that_the_runtime_lacks(make_onnx: MakeOnnx) -> None:
    with pytest.raises(ModelFileError, match=r"cannot load the file \(opset 99\)"):
        open_session(make_onnx(opset=99))


def test_a_truncated_file_is_named(make_onnx: MakeOnnx) -> None:
    path = make_onnx()
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ModelFileError, match=f"{path}: truncated"):
        open_session(path)


def test_the_optimized_graph_can_be_kept(make_onnx: MakeOnnx, tmp_path: Path) -> None:
    open_session(make_onnx(), optimized_to=tmp_path / "optimized.onnx", kernel_rule="arm")
    assert (tmp_path / "optimized.onnx").stat().st_size > 0


def test_threads_must_be_positive(make_onnx: MakeOnnx) -> None:
    with pytest.raises(ValueError, match="threads"):
        open_session(make_onnx(), threads=0)


@pytest.fixture
def convolution(tmp_path: Path) -> Path:
    """A convolution between int8 Q/DQ nodes: int8 activations, which the x86 rule leaves in float."""
    rng = np.random.default_rng(0)
    constants = {
        "scale": np.float32(0.02),
        "zero": np.int8(0),
        "weight": rng.integers(-127, 128, (16, 16, 3, 3), dtype=np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "scale", "zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["weight", "scale", "zero"], ["wd"]),
        helper.make_node("Conv", ["xd", "wd"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["c", "scale", "zero"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "scale", "zero"], ["cd"]),
        helper.make_node("Add", ["cd", "xd"], ["a"]),
        helper.make_node("QuantizeLinear", ["a", "scale", "zero"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "scale", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16, 32, 32])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "convolution.onnx")
    return tmp_path / "convolution.onnx"


@pytest.mark.parametrize(("rule", "operator"), [("x86", "Conv"), ("arm", "QLinearConv")])
def test_the_kernel_rule_decides_what_is_fused(
    convolution: Path, tmp_path: Path, rule: Literal["x86", "arm"], operator: str
) -> None:
    open_session(convolution, optimized_to=tmp_path / "optimized.onnx", kernel_rule=rule)
    operators = read_summary(tmp_path / "optimized.onnx").operators
    assert {name for name in operators if name in ("Conv", "FusedConv", "QLinearConv")} == {operator}


def test_an_idle_pool_does_not_spin(convolution: Path) -> None:
    # Measured: a pool left to itself burns 30 ms of processor time after each run.
    session = open_session(convolution, threads=2)
    inputs = np.zeros((1, 16, 32, 32), np.float32)
    idle = []
    for _ in range(5):
        run_batches(session, inputs)
        before = time.process_time()
        time.sleep(0.1)
        idle.append(time.process_time() - before)
    assert min(idle) < 0.005


def test_random_inputs_follow_shape_type_and_seed(make_onnx: MakeOnnx) -> None:
    declared = open_session(make_onnx()).get_inputs()
    (one,) = random_inputs(declared, batch=2, seed=3).values()
    (again,) = random_inputs(declared, batch=2, seed=3).values()
    (other,) = random_inputs(declared, batch=2, seed=4).values()
    assert (one.shape, one.dtype) == ((2, 3, 4, 4), np.float32)
    assert one.min() >= -1
    assert one.max() < 1
    assert one.std() > 0.4
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("shape", [(3, 4, 4), (2, 3, 4, 4), {"x": (3, 4, 4)}])
def test_open_dimensions_come_from_shape(make_onnx: MakeOnnx, shape: object) -> None:
    declared = open_session(make_onnx(dims=("n", 3, "h", "w"))).get_inputs()
    assert random_inputs(declared, batch=2, shape=shape)["x"].shape == (2, 3, 4, 4)  # type: ignore[arg-type]


def test_open_dimensions_without_shape_are_one_line(make_onnx: MakeOnnx) -> None:
    declared = open_session(make_onnx(dims=("n", 3, "h", "w"))).get_inputs()
    with pytest.raises(
        ModelFileError, match=r"'x': open dimensions besides the batch; got '3, h, w'; give .* --shape"
    ):
        random_inputs(declared)


@pytest.mark.parametrize(
    ("dims", "options", "message"),
    [
        (
            (1, 3, 4, 4),
            {"batch": 8},
            "the batch is fixed in the file; got 8; allowed: 1; measure with --batch 1",
        ),
        (("n", 3, 4, 4), {"shape": (3, 8, 8)}, r"another shape; got \[3, 8, 8\]"),
        (("n", 3, "h", "w"), {"shape": (3, 0, 4)}, "dimensions must be at least 1"),
        (("n", 3, 4, 4), {"shape": {"y": (3, 4, 4)}}, "no such input; got 'y'; allowed: x"),
    ],
)
def test_a_shape_that_does_not_fit(
    make_onnx: MakeOnnx, dims: tuple[int | str, ...], options: dict[str, object], message: str
) -> None:
    declared = open_session(make_onnx(dims=dims)).get_inputs()
    with pytest.raises(ModelFileError, match=message):
        random_inputs(declared, **options)  # type: ignore[arg-type]


def test_denormals_are_flushed_where_it_is_asked_for(tmp_path: Path) -> None:
    """In a process of its own: it holds for the whole thread."""
    node = helper.make_node("Mul", ["input", "one"], ["output"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("input", "output")]
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [0.5])
    graph = helper.make_graph([node], "g", values[:1], values[1:], [one])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    code = (
        "import sys, numpy as np; from pathlib import Path; from edgekd.profiles import open_session\n"
        "session = open_session(Path(sys.argv[1]), flush_denormals=sys.argv[2] == '1')\n"
        "print(session.run(None, {'input': np.array([1e-39], np.float32)})[0][0] == 0)"
    )
    for flush, gone in (("1", "True"), ("0", "False")):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "m.onnx"), flush], capture_output=True, text=True, check=True
        )  # fmt: skip
        assert done.stdout.strip() == gone


def test_a_measuring_process_flushes_them(make_onnx: MakeOnnx, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekd.profiles.runner import RunSettings
    from edgekd.profiles.runtimes import ort

    asked: dict[str, object] = {}

    def opened(path: Path, **options: object):  # type: ignore[no-untyped-def]
        asked.update(options)
        return open_session(path)

    monkeypatch.setattr(ort, "open_session", opened)
    ort.load(make_onnx(), RunSettings())
    assert asked["flush_denormals"] is True
