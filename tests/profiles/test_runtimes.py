"""The table of runtimes, and real runtimes where they are installed."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import MissingDependencyError, ModelFileError, UserInputError
from edgekd.profiles import in_each_runtime, measure
from edgekd.profiles.runtimes import RUNTIMES, runtime_of

FOLDER = Path(__file__).parents[2] / "profiles" / "runtimes"
MakeOnnx = Callable[..., Path]


def test_the_table_is_what_is_on_disk() -> None:
    helpers = {"__init__", "loaded", "providers", "trtexec_log"}
    assert {runtime.module for runtime in RUNTIMES.values()} == {
        p.stem for p in FOLDER.glob("*.py")
    } - helpers


@pytest.mark.parametrize(
    ("name", "runtime"),
    [
        ("a.onnx", "onnxruntime"),
        ("a.ONNX", "onnxruntime"),
        ("a.xml", "openvino"),
        ("a.pte", "executorch"),
        ("a.tflite", "litert"),
        ("a.engine", "trtexec"),
        ("a.plan", "trtexec"),
    ],
)
def test_the_suffix_chooses(name: str, runtime: str) -> None:
    assert runtime_of(Path(name)).name == runtime


def test_a_suffix_and_a_name_that_do_not_fit() -> None:
    with pytest.raises(
        UserInputError, match=r"m\.h5: no runtime takes such a file; got '\.h5'; allowed: \.onnx"
    ):
        runtime_of(Path("m.h5"))
    with pytest.raises(UserInputError, match="runtime: unknown; got 'openvin'; did you mean 'openvino'"):
        runtime_of(Path("m.onnx"), "openvin")
    with pytest.raises(
        UserInputError, match=r"m\.pte: litert takes no such file; got '\.pte'; allowed: \.tflite"
    ):
        runtime_of(Path("m.pte"), "litert")


def test_each_file_in_each_runtime_that_takes_it() -> None:
    models = {"a.onnx": Path("a.onnx"), "a.pte": Path("a.pte")}
    assert in_each_runtime(models, []) == (models, {"a.onnx": "onnxruntime", "a.pte": "executorch"})
    paths, chosen = in_each_runtime(models, ["onnxruntime", "openvino"])
    assert chosen == {
        "a.onnx (onnxruntime)": "onnxruntime",
        "a.onnx (openvino)": "openvino",
        "a.pte (executorch)": "executorch",
    }
    assert paths["a.onnx (openvino)"] == Path("a.onnx")
    assert in_each_runtime({"a": Path("a.onnx")}, ["openvino"])[1] == {"a": "openvino"}
    with pytest.raises(UserInputError, match="openvino takes no such file"):
        in_each_runtime({"a": Path("a.pte")}, ["openvino"])
    with pytest.raises(UserInputError, match="unknown; got 'tensorrt'"):
        in_each_runtime(models, ["onnxruntime", "tensorrt"])


@pytest.mark.parametrize(
    ("suffix", "module", "extra"),
    [
        (".xml", "openvino", "openvino"),
        (".pte", "executorch", "executorch"),
        (".tflite", "ai_edge_litert", "litert"),
    ],
)
def test_a_runtime_that_is_not_installed(tmp_path: Path, suffix: str, module: str, extra: str) -> None:
    try:
        __import__(module)
    except ImportError:
        pass
    else:
        pytest.skip(f"{module} is installed")
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"anything")
    with pytest.raises(MissingDependencyError, match=rf"cannot be imported.*pip install 'edgekd\[{extra}\]'"):
        measure({"a": path})


def test_a_missing_file_of_another_runtime() -> None:
    with pytest.raises(ModelFileError, match=r"nowhere\.pte: cannot be read"):
        measure({"a": Path("nowhere.pte")})


def test_openvino_reads_the_same_file(make_onnx: MakeOnnx) -> None:
    pytest.importorskip("openvino")
    path = make_onnx(features=2000, dims=("n", 20, 100), classes=500)
    found = measure(
        {"ort": path, "ov": path}, runtime={"ov": "openvino"}, rounds=2, runs=5, warmup=1, batch=2, streams=2
    )
    assert [report.runtime for report in found.reports.values()] == ["onnxruntime", "openvino"]
    assert found.reports["ov"].inputs == {"x": [2, 20, 100]}
    assert found.ratio("ort", "ov").rounds == 2
    (path.parent / "broken.xml").write_text("<no-model/>")
    with pytest.raises(ModelFileError, match=r"broken\.xml: openvino .* cannot load the file"):
        measure({"a": path.parent / "broken.xml"})


@pytest.mark.parametrize(
    ("name", "module", "runtime"),
    [("tiny.pte", "executorch", "executorch"), ("tiny.tflite", "ai_edge_litert", "litert")],
)
def test_real_files_of_other_runtimes(name: str, module: str, runtime: str, make_onnx: MakeOnnx) -> None:
    pytest.importorskip(module)
    models = {"onnx": make_onnx(), "other": Path(__file__).parent / "golden" / name}
    found = measure(models, rounds=2, runs=5, warmup=1, streams=2)
    report = found.reports["other"]
    assert (report.runtime, report.samples > 0, list(report.inputs.values())) == (
        runtime,
        True,
        [[1, 3, 4, 4]],
    )
    assert found.ratio("onnx", "other").rounds == 2
    with pytest.raises(ModelFileError, match="the batch is fixed in the file; got 2; allowed: 1"):
        measure({"a": models["other"]}, batch=2)
    broken = make_onnx().with_suffix(Path(name).suffix)
    broken.write_bytes(models["other"].read_bytes()[:500])
    with pytest.raises(ModelFileError, match=f"{runtime} .* cannot load the file"):
        measure({"a": broken})


class FakeProgram:
    """The part of ExecuTorch's program, method and their descriptions that is used."""

    method_names = frozenset({"forward"})
    sizes = ((1, 4), (1,))
    dtypes = (6, 4)

    def metadata(self, name: str) -> types.SimpleNamespace:
        assert name == "forward"
        return types.SimpleNamespace(
            num_inputs=lambda: 2,
            input_tensor_meta=lambda place: types.SimpleNamespace(
                sizes=lambda: self.sizes[place], dtype=lambda: self.dtypes[place]
            ),
        )

    def load_method(self, name: str) -> FakeProgram:
        assert name == "forward"
        return FakeProgram()

    def execute(self, tensors: list[object]) -> None:
        assert [str(tensor.dtype) for tensor in tensors] == ["torch.float32", "torch.int64"]  # type: ignore[attr-defined]


def test_executorch_feeds_what_the_file_declares(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from edgekd.profiles.runner import RunSettings
    from edgekd.profiles.runtimes import executorch

    programs: list[FakeProgram] = []
    threads: list[int] = []

    def load_program(path: str) -> FakeProgram:
        programs.append(FakeProgram())
        return programs[-1]

    runtime = types.SimpleNamespace(load_program=load_program)
    fakes = {
        "executorch": {},
        "executorch.runtime": {"Runtime": types.SimpleNamespace(get=lambda: runtime)},
        "executorch.extension": {},
        "executorch.extension.pybindings": {},
        "executorch.extension.pybindings.portable_lib": {"_unsafe_reset_threadpool": threads.append},
        "executorch.kernels": {},
        "executorch.kernels.quantized": {},
    }
    for name, names in fakes.items():
        module = types.ModuleType(name)
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, name, module)
    loaded = executorch.load(tmp_path / "m.pte", RunSettings(threads=3))
    assert loaded.inputs == {"input0": [1, 4], "input1": [1]}
    for call in loaded.callers(2):
        call()
    assert (threads, len(programs)) == ([3], 2)
    monkeypatch.setattr(FakeProgram, "method_names", frozenset({"encode"}))
    with pytest.raises(ModelFileError, match=r"m\.pte: has no such method; got 'forward'; allowed: encode"):
        executorch.load(tmp_path / "m.pte", RunSettings())
    monkeypatch.setattr(FakeProgram, "method_names", frozenset({"forward"}))
    monkeypatch.setattr(FakeProgram, "dtypes", (6, 99))
    with pytest.raises(ModelFileError, match="input 1 has an unknown type; got 99"):
        executorch.load(tmp_path / "m.pte", RunSettings())


class FakeInterpreter:
    """The part of LiteRT's interpreter that is used."""

    def __init__(self, model_path: str, num_threads: int) -> None:
        self.num_threads = num_threads
        self.shape, self.values = [1, 4], None

    def get_input_details(self) -> list[dict[str, object]]:
        return [{"index": 7, "name": "x", "dtype": np.float32, "shape": np.array(self.shape),
                 "shape_signature": np.array([-1, 4])}]  # fmt: skip

    def get_tensor_details(self) -> list[dict[str, object]]:
        return [{"dtype": np.int8, "shape": np.array([100, 4])}, {"dtype": np.float32, "shape": np.array([4])},
                {"dtype": np.int8, "shape": np.array([])}]  # fmt: skip

    def resize_tensor_input(self, index: int, shape: tuple[int, ...]) -> None:
        self.shape = list(shape)

    def allocate_tensors(self) -> None: ...

    def set_tensor(self, index: int, values: np.ndarray) -> None:
        assert (index, list(values.shape)) == (7, self.shape)
        self.values = values

    def invoke(self) -> None:
        assert self.values is not None


def test_litert_feeds_what_the_file_declares(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from edgekd.profiles.runner import RunSettings
    from edgekd.profiles.runtimes import litert

    module = types.ModuleType("ai_edge_litert.interpreter")
    made: list[FakeInterpreter] = []

    def make(**options: object) -> FakeInterpreter:
        made.append(FakeInterpreter(**options))  # type: ignore[arg-type]
        return made[-1]

    module.Interpreter = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ai_edge_litert", types.ModuleType("ai_edge_litert"))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", module)
    loaded = litert.load(tmp_path / "m.tflite", RunSettings(batch=3, threads=2))
    assert (loaded.inputs, loaded.precision) == ({"x": [3, 4]}, "int8")
    callers = loaded.callers(2)
    for call in callers:
        call()
    # Two streams are two interpreters: one must not be called from two threads.
    assert len(made) == 2
    assert {interpreter.num_threads for interpreter in made} == {2}
    assert callers[0].__self__ is not callers[1].__self__  # type: ignore[attr-defined]
