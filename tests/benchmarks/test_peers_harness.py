"""The harness with peers that behave and peers that do not: every one ends as the right row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.peers import environment
from benchmarks.peers.bounded import Ended, last_error, one_line, run_bounded
from benchmarks.peers.catalogue import Catalogue, Peer
from benchmarks.peers.images import open_photos
from benchmarks.peers.kept import job_key, recall, remember
from benchmarks.peers.kernels import count_kernels
from benchmarks.peers.launch import clean_environ, model_bytes
from benchmarks.peers.row import Result, Row
from benchmarks.peers.run import Options, compare_one
from benchmarks.peers.subject import prepare_subject
from edgekd.errors import DataError

MODEL = "test_resnet"  # timm's smallest: 0.5 M parameters at 160 px
RESULT = '{"seconds": 1.5, "peak_memory_bytes": 1000, "notes": ["a note"]}'
HEAD = "import pathlib, shutil, sys, time\njob = pathlib.Path(sys.argv[1])\n"
SCRIPTS = {
    "edgekd": "shutil.copy(job / 'fp32.onnx', job / 'model.onnx')\npathlib.Path('litter.data').touch()\n",
    "failing": "raise ValueError('no pattern for /usr/lib/python3/models/net.py')\n",
    "hanging": "import subprocess\nsubprocess.Popen(['sleep', '60'])\ntime.sleep(60)\n",
    "silent": "",
    "broken": "(job / 'model.onnx').write_bytes(b'not a model')\n",
}


def no_network(command: list[str], *, timeout_s: float) -> Ended:
    """pip as it answers when there is no such package; the environment itself is made without a word."""
    if "install" not in command:
        return Ended(0, "", 0.1)
    return Ended(
        1, "WARNING: retrying\nERROR: No matching distribution found for edgekd-no-such-package", 0.1
    )


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    folder = tmp_path_factory.mktemp("peers")
    scripts = folder / "scripts"
    scripts.mkdir()
    for name, body in SCRIPTS.items():
        written = f"(job / 'result.json').write_text({RESULT!r})\n"
        (scripts / f"{name}.py").write_text(HEAD + body + written)
    peers = {name: Peer(title=name, environment="own", script=name, package="numpy") for name in SCRIPTS}
    peers["absent"] = Peer(title="absent", environment="none", script="edgekd", package="numpy")
    environments = {"none": [["edgekd-no-such-package==1.0"]]}
    catalogue = Catalogue(constraints=[], environments=environments, peers=peers, scripts=scripts)
    subject = prepare_subject(MODEL, folder / MODEL, open_photos(None), calibration=4, comparison=6, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("EDGEKD_CACHE", str(folder / "cache"))
        patch.setattr(environment, "run_bounded", no_network)
        options = Options(out=folder, calibration=4, comparison=6, rounds=2, runs=3, timeout_s=20)
        quick = {name: peer for name, peer in peers.items() if name != "hanging"}
        found = compare_one(subject, quick, catalogue, options)
        short = Options(out=folder, rounds=2, runs=3, timeout_s=2)
        found += compare_one(subject, {"hanging": peers["hanging"]}, catalogue, short)
    assert not list(folder.rglob("litter.data")), "a peer's scratch files go with it"
    return {row.peer: row for row in found}


def test_a_file_equal_to_fp32_agrees_wholly(rows: dict[str, Row]) -> None:
    row = rows["edgekd"]
    assert (row.status, row.reason) == ("ok", None)
    assert (row.agreement, row.samples) == (1.0, 6)
    assert row.max_abs_diff is not None and row.max_abs_diff < 1e-4  # torch's own export against edgekd's
    assert row.sqnr_db is None or row.sqnr_db > 80
    assert (row.quantize_s, row.peak_memory_bytes, row.notes) == (1.5, 1000, ["a note"])
    assert row.integer_ops == 0 and row.float_ops and row.coverage == 0.0
    assert row.speedup is not None and row.speedup.low <= row.speedup.value <= row.speedup.high
    assert row.p50_ms and row.fp32_p50_ms and row.size_bytes
    assert row.edgekd_speedup is None
    assert row.version == np.__version__


@pytest.mark.parametrize(
    ("peer", "status", "reason"),
    [
        ("failing", "failed", "ValueError: no pattern for …/net.py"),
        ("hanging", "timed out", "not done after 2 s"),
        ("silent", "failed", "its script ended well but left no model.onnx"),
        ("broken", "wrong file", None),
        (
            "absent",
            "not installed",
            "does not install: ERROR: No matching distribution found for edgekd-no-such-package",
        ),
    ],
)
def test_what_fails_says_why_in_one_line(
    rows: dict[str, Row], peer: str, status: str, reason: str | None
) -> None:
    row = rows[peer]
    assert row.status == status
    assert row.reason and "\n" not in row.reason and len(row.reason) <= 220
    if reason is not None:
        assert row.reason == reason
    assert row.p50_ms is None and row.speedup is None


def test_an_environment_is_made_once_and_a_refusal_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def pip(command: list[str], *, timeout_s: float) -> Ended:
        calls.append(command)
        refused = "bad==1" in command
        listed = '[{"name": "Good", "version": "1.2"}]'
        return Ended(int(refused), "ERROR: no bad" if refused else listed, 0.1)

    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path))
    monkeypatch.setattr(environment, "run_bounded", pip)
    found = environment.prepare("fine", [["good==1.2"]], constraints=["torch==2"], timeout_s=9)
    assert found.versions == {"good": "1.2"}
    assert (tmp_path / "peers/fine/constraints.txt").read_text() == "torch==2\n"
    for _ in range(2):
        environment.prepare("fine", [["good==1.2"]], constraints=["torch==2"], timeout_s=9)
        with pytest.raises(environment.EnvironmentFailed, match="does not install: ERROR: no bad"):
            environment.prepare("poor", [["bad==1"]], timeout_s=9)
    assert len(calls) == 3 + 2
    environment.prepare("fine", [["good==1.3"]], constraints=["torch==2"], timeout_s=9)
    assert len(calls) == 3 + 2 + 3


def test_what_a_peer_wrote_is_kept_until_its_job_changes(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("print(1)")
    for name in ("fp32.onnx", "weights.safetensors", "calibration.npy"):
        (tmp_path / name).write_bytes(b"same")
    (tmp_path / "job.json").write_text('{"settings": {"a": 1}}')
    here = environment.Environment(Path("python"), {"peer": "1.0"})
    row = Row(model="net", peer="p", title="P", version="1.0")
    key = job_key(tmp_path, script, here)
    assert recall(tmp_path, key, row) is None
    remember(tmp_path, key, row.model_copy(update={"quantize_s": 3.0, "p50_ms": 1.0}))
    assert recall(tmp_path, key, row) == row.model_copy(update={"quantize_s": 3.0})
    remember(tmp_path, key, row.failed("timed out", "not done after 2 s"))
    assert recall(tmp_path, key, row) is None
    keys = {key, job_key(tmp_path, script, environment.Environment(Path("python"), {"peer": "1.1"}))}
    for name, content in (
        ("script.py", "print(2)"),
        ("fp32.onnx", "x"),
        ("job.json", '{"settings": {"a": 2}}'),
    ):
        (tmp_path / name).write_text(content)
        keys.add(job_key(tmp_path, script, here))
    assert len(keys) == 5


def test_a_command_that_outlives_its_time_leaves_no_child(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = f"(sleep 1.5; touch {mark}) & sleep 30"
    ended = run_bounded(["bash", "-c", script], timeout_s=0.3)
    assert ended.code is None and ended.seconds < 10
    run_bounded(["sleep", "2"], timeout_s=5)
    assert not mark.exists()


def test_the_error_line_of_a_log() -> None:
    log = "Traceback\n  File x\ntorch.onnx.OnnxError: no op 'a'\n  while tracing\nsome warning at exit"
    assert last_error(log) == "torch.onnx.OnnxError: no op 'a'"
    assert last_error("ERROR: No matching distribution\nhint: see above") == "ERROR: No matching distribution"
    assert last_error("KeyError: 'a'\nDuring handling:\nValueError: no a") == "ValueError: no a"
    assert last_error("") == ""
    assert one_line(f"{Path.home()}/secret/place/file.py\nend").endswith("file.py end")
    assert str(Path.home()) not in one_line(f"at {Path.home()}/secret")


def test_a_peer_sees_neither_gpu_nor_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "secret")
    environ = clean_environ(2)
    assert "SOME_TOKEN" not in environ
    assert (environ["CUDA_VISIBLE_DEVICES"], environ["OMP_NUM_THREADS"]) == ("", "2")


def test_result_round_trips_as_json(rows: dict[str, Row]) -> None:
    result = Result(conditions={"threads": 1}, models=[{"model": MODEL}], rows=list(rows.values()))
    text = json.dumps(result.model_dump(mode="json"), allow_nan=False)
    assert Result.model_validate_json(text) == result
    with pytest.raises(ValueError, match="surprise"):
        Result.model_validate({**json.loads(text), "surprise": 1})


def test_kernels_with_a_weight_are_counted_and_products_of_activations_are_not(tmp_path: Path) -> None:
    node, tensor = onnx.helper.make_node, onnx.TensorProto.FLOAT
    value = onnx.helper.make_tensor_value_info
    weight = onnx.numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    graph = onnx.helper.make_graph(
        [
            node("MatMul", ["x", "w"], ["a"]),
            node("Transpose", ["a"], ["t"], perm=[1, 0]),
            node("MatMul", ["a", "t"], ["y"]),
        ],
        "two-products",
        [value("x", tensor, [2, 4])],
        [value("y", tensor, [2, 2])],
        [weight],
    )
    path = tmp_path / "products.onnx"
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, str(path))
    assert count_kernels(path) == (0, 1)


def test_bytes_count_what_belongs_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"1" * 10)
    (tmp_path / "model.onnx_data").write_bytes(b"1" * 5)
    (tmp_path / "model.xml").write_bytes(b"1" * 3)
    (tmp_path / "model.bin").write_bytes(b"1" * 4)
    assert model_bytes(tmp_path / "model.onnx") == 15
    assert model_bytes(tmp_path / "model.xml") == 7


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image"):
        open_photos(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no")
    with pytest.raises(DataError, match="cannot be read"):
        open_photos(tmp_path)
