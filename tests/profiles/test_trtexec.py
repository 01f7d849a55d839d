"""``trtexec``: real logs from public threads, and a stand-in program that prints and writes what it would.

Sources of the logs: a walk-through of TensorRT 10.9 on an RTX 3070 (ResNet-50); pytorch/TensorRT#1340 (2:4 asked
for, no layer eligible); AUTOMATIC1111/stable-diffusion-webui-tensorrt#54 (an operator without a plugin).
"""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgekd.errors import EdgeKDError, MissingDependencyError, ModelFileError
from edgekd.profiles import measure
from edgekd.profiles.runtimes import trtexec
from edgekd.profiles.runtimes.trtexec_log import parse_log

GOLDEN = Path(__file__).parent / "golden"
RESNET = (GOLDEN / "trtexec_10_9_resnet50.log").read_text()
SPARSE = (GOLDEN / "trtexec_8_4_sparse.log").read_text()
FAILED = (GOLDEN / "trtexec_8_6_failed.log").read_text()

# Stands in for the program: keeps its arguments, prints a real log, writes an engine and times of 0.1 ms steps.
STAND_IN = """#!{python}
import json, os, sys
from pathlib import Path
here = Path(__file__).parent
options = dict(part.lstrip("-").split("=", 1) if "=" in part else (part.lstrip("-"), "") for part in sys.argv[1:])
with (here / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps(options) + "\\n")
print((here / "log").read_text())
if (here / "fails").exists() and "help" not in options:
    sys.exit(1)
if "saveEngine" in options:
    Path(options["saveEngine"]).write_text("engine")
if "exportTimes" in options:
    assert Path(options["loadEngine"]).read_text() == "engine"
    warmup = float(options["warmUp"])
    queries = [{{"startComputeMs": start, "latencyMs": 9.0 if start < warmup else 2.0 + 0.1 * start}}
               for start in (warmup - 1, *(warmup + i for i in range(int(options["iterations"]))))]
    Path(options["exportTimes"]).write_text(json.dumps(queries))
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """``stand_in(log)``: a ``trtexec`` first on the path that prints ``log``; returns its folder."""

    def make(log: str, *, fails: bool = False) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir()
        program = folder / "trtexec"
        program.write_text(STAND_IN.format(python=sys.executable))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        (folder / "log").write_text(log)
        if fails:
            (folder / "fails").touch()
        monkeypatch.setenv("PATH", str(folder))
        return folder

    return make


def calls(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "calls.jsonl").read_text().splitlines()]


def test_a_real_log() -> None:
    log = parse_log(RESNET)
    assert (log.version, log.major, log.gpu) == ("10.9.0", 10, "NVIDIA GeForce RTX 3070")
    assert (log.build_seconds, log.throughput_qps) == (10.7204, 691.435)
    assert log.load_ms == pytest.approx(103.31)
    assert log.latency_ms == {
        "min": 1.4209, "max": 3.047, "mean": 1.48372, "median": 1.43823, "p90": 1.45624, "p95": 1.71796, "p99": 2.61597,
    }  # fmt: skip
    assert log.compute_ms["median"] == 1.39775
    assert (log.host_bytes, log.gpu_bytes) == (2873 << 20, 2107 << 20)
    assert (log.errors, log.sparse_eligible) == ((), None)


def test_sparsity_that_was_asked_for_and_found_nothing() -> None:
    log = parse_log(SPARSE)
    assert (log.version, log.sparse_eligible, log.sparse_picked) == ("8.4.2", (), ())
    found = SPARSE.replace("sparse math:", "sparse math: Conv_22, MatMul_51 + Add_52, Gemm_725").replace(
        "for layers:", "for layers: Conv_22"
    )
    log = parse_log(found)
    assert log.sparse_eligible == ("Conv_22", "MatMul_51 + Add_52", "Gemm_725")
    assert log.sparse_picked == ("Conv_22",)


@pytest.mark.parametrize(
    ("stamp", "version"),
    [("v8001", "8.0.1"), ("v8402", "8.4.2"), ("v100300", "10.3.0"), ("v101602", "10.16.2")],
)
def test_versions_as_releases_stamp_them(stamp: str, version: str) -> None:
    assert parse_log(f"&&&& RUNNING TensorRT.trtexec [TensorRT {stamp}] # trtexec").version == version


def test_a_failure_names_its_reason() -> None:
    assert parse_log(FAILED).why == (
        "ModelImporter.cpp:732: ERROR: builtin_op_importers.cpp:5428 In function importFallbackPluginImporter: "
        '[8] Assertion failed: creator && "Plugin not found, are the plugin name, version, and namespace correct?"'
    )


def test_an_empty_log() -> None:
    log = parse_log("")
    assert (log.version, log.major, log.load_ms, log.why, log.latency_ms) == ("", 0, None, None, {})


def test_measured_round_by_round(make_onnx: Callable[..., Path], stand_in: Callable[..., Path]) -> None:
    folder = stand_in(RESNET)
    path = make_onnx("it's a model; rm -rf.onnx")
    report = measure({"a": path}, runtime="trtexec", rounds=2, runs=4, warmup=3, batch=2).reports["a"]
    assert (report.runtime, report.runtime_version, report.provider) == (
        "trtexec",
        "10.9.0",
        "NVIDIA GeForce RTX 3070",
    )
    assert report.load_ms == pytest.approx(103.31)
    assert report.peak_memory_bytes == 2873 << 20
    assert report.inputs == {"x": [2, 3, 4, 4]}
    build, first, *rounds = calls(folder)
    assert (build["onnx"], build["sparsity"], build["shapes"]) == (str(path), "enable", "x:2x3x4x4")
    assert not build.keys() & {"fp16", "int8"}
    assert (first["iterations"], first["warmUp"]) == ("1", "0")
    # 2 ms the first query, so 6 ms of warm-up; what started before is not counted.
    assert [(call["iterations"], call["warmUp"]) for call in rounds] == [("4", "6")] * 2
    assert report.rounds_ms == (pytest.approx([2.6, 2.7, 2.8, 2.9]),) * 2
    assert not Path(first["loadEngine"]).exists()


def test_a_slow_model_makes_fewer_queries(
    make_onnx: Callable[..., Path], stand_in: Callable[..., Path]
) -> None:
    folder = stand_in(RESNET)
    models = {"a": make_onnx(dims=(1, 3, 4, 4))}
    measure(models, runtime="trtexec", rounds=1, runs=1000, max_seconds_per_round=0.02, streams=2)
    build, _, last = calls(folder)
    assert "shapes" not in build
    assert (last["iterations"], last["infStreams"]) == ("10", "2")


def test_what_became_of_sparse_layers_is_noted(
    make_onnx: Callable[..., Path], stand_in: Callable[..., Path]
) -> None:
    stand_in(RESNET + "[I] [TRT] (Sparsity) Layers eligible for sparse math: A, B + C\n"
             "[I] [TRT] (Sparsity) TRT inference plan picked sparse implementation for layers: \n")  # fmt: skip
    report = measure({"a": make_onnx()}, runtime="trtexec", rounds=1, runs=2).reports["a"]
    assert report.to_json()["notes"] == [
        "TensorRT runs 0 of 2 layers with 2:4 weights as sparse ones: dense kernels were faster"
    ]


@pytest.mark.parametrize(("version", "flags"), [("v8402", {"fp16", "int8"}), ("v110000", set())])
def test_types_are_allowed_where_the_release_asks_for_it(
    make_onnx: Callable[..., Path], stand_in: Callable[..., Path], version: str, flags: set[str]
) -> None:
    folder = stand_in(RESNET.replace("v100900", version))
    path = make_onnx()
    model = onnx.load(path)
    model.graph.initializer.extend(
        [numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.int8(0), "z")]
    )
    model.graph.node.insert(0, helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]))
    model.graph.node.insert(1, helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]))
    model.graph.node[2].input[0] = "d"
    onnx.save(model, path)
    measure({"a": path}, runtime="trtexec", rounds=1, runs=2)
    build = next(call for call in calls(folder) if "onnx" in call)
    assert build.keys() & {"fp16", "int8"} == flags


def test_a_ready_engine_is_not_built(tmp_path: Path, stand_in: Callable[..., Path]) -> None:
    folder = stand_in(RESNET)
    engine = tmp_path / "model.engine"
    engine.write_text("engine")
    report = measure({"a": engine}, rounds=1, runs=2).reports["a"]
    assert (report.runtime, report.precision) == ("trtexec", "unknown")
    assert all("onnx" not in call for call in calls(folder))
    assert engine.exists()


def test_a_failure_is_one_line(make_onnx: Callable[..., Path], stand_in: Callable[..., Path]) -> None:
    stand_in(FAILED, fails=True)
    with pytest.raises(
        ModelFileError, match=r"tiny\.onnx: trtexec 8\.6\.1 failed; got .*Plugin not found"
    ) as caught:
        measure({"a": make_onnx()}, runtime="trtexec")
    assert "\n" not in str(caught.value)


def test_times_that_were_not_written(
    make_onnx: Callable[..., Path], stand_in: Callable[..., Path], tmp_path: Path
) -> None:
    folder = stand_in(RESNET)
    program = folder / "trtexec"
    program.write_text(program.read_text().replace('Path(options["exportTimes"]).write_text', "str"))
    with pytest.raises(EdgeKDError, match=r"trtexec wrote no times; got .FileNotFoundError"):
        measure({"a": make_onnx()}, runtime="trtexec")


def test_no_trtexec_is_one_line(
    make_onnx: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(trtexec, "_JETSON", tmp_path / "nothing")
    with pytest.raises(MissingDependencyError, match="trtexec: not on the path; it comes with TensorRT"):
        measure({"a": make_onnx()}, runtime="trtexec")
