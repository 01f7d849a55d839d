"""The table of runtimes, and real runtimes where they are installed."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import MissingDependencyError, ModelFileError, UserInputError
from edgekd.profiles import in_each_runtime, measure, open_session
from edgekd.profiles.runtimes import RUNTIMES, runtime_of
from edgekd.profiles.runtimes.providers import check_provider, check_used, provider_arguments

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


def test_a_provider_that_the_build_lacks_is_one_line_with_what_it_has(make_onnx: MakeOnnx) -> None:
    with pytest.raises(
        MissingDependencyError,
        match=r"provider 'cuda': the installed ONNX Runtime .* lacks it; allowed: .*cpu",
    ) as caught:
        measure({"a": make_onnx()}, provider="cuda")
    assert "onnxruntime-gpu" in str(caught.value)
    with pytest.raises(UserInputError, match="provider: unknown; got 'cude'; did you mean 'cuda'"):
        open_session(make_onnx(), provider="cude")
    with pytest.raises(UserInputError, match="provider 'cuda': belongs to onnxruntime; a runs in openvino"):
        measure({"a": make_onnx()}, provider="cuda", runtime="openvino")


def test_providers_of_another_build() -> None:
    ort = types.SimpleNamespace(
        __version__="1.99", get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    check_provider("cuda", ort)
    with pytest.raises(MissingDependencyError, match="allowed: cuda, cpu"):
        check_provider("tensorrt", ort)


def test_falling_back_to_the_cpu_is_an_error() -> None:
    check_used("cuda", ["CUDAExecutionProvider", "CPUExecutionProvider"])
    with pytest.raises(
        MissingDependencyError, match="provider 'cuda': ONNX Runtime could not load it and fell back"
    ):
        check_used("cuda", ["CPUExecutionProvider"])


def test_provider_arguments() -> None:
    assert provider_arguments("cpu", threads=3) == ["CPUExecutionProvider"]
    assert provider_arguments("xnnpack", threads=3) == [
        ("XnnpackExecutionProvider", {"intra_op_num_threads": "3"}), "CPUExecutionProvider",
    ]  # fmt: skip


def test_nodes_that_the_provider_left_to_the_cpu_are_noted() -> None:
    from edgekd.profiles.runtimes.ort import _elsewhere

    def part(name: str, count: int) -> types.SimpleNamespace:
        return types.SimpleNamespace(ep_name=name, get_nodes=lambda: [None] * count)

    parts = [
        part("CUDAExecutionProvider", 50),
        part("CPUExecutionProvider", 3),
        part("CPUExecutionProvider", 4),
    ]
    session = types.SimpleNamespace(get_provider_graph_assignment_info=lambda: parts)
    assert _elsewhere(session, "cuda") == ["7 of 57 nodes do not run on cuda but on the cpu"]
    del parts[1:]
    assert _elsewhere(session, "cuda") == []
    assert _elsewhere(types.SimpleNamespace(), "cuda") == []


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
