"""Real workers: real measurements, and how they die."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.errors import EdgeKDError, ModelFileError
from edgekd.profiles import measure, process
from edgekd.profiles.process import WorkerRunner
from edgekd.profiles.runner import RunSettings
from edgekd.profiles.worker import InProcessRunner, memory_bytes

MakeOnnx = Callable[..., Path]
SETTINGS = RunSettings(runs=5, warmup=1)


def is_alive(pid: int) -> bool:
    """Running: a process that ended but that nobody has waited for does not count."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_two_files_measured_here(make_onnx: MakeOnnx) -> None:
    # Names that a shell or an option parser would trip over; 400 times the work in the second file.
    small = make_onnx("--name with 'quotes'\nand lines.onnx", features=100, dims=("n", 10, 10), classes=100)
    large = make_onnx("large.onnx", features=2000, dims=("n", 20, 100), classes=2000)
    measurement = measure({"small": small, "large": large}, rounds=3, runs=10, warmup=2)
    assert measurement.ratio("large", "small").value > 3
    report = measurement.reports["large"]
    assert (report.runtime, report.device, report.samples, report.precision) == (
        "onnxruntime",
        "cpu",
        30,
        "fp32",
    )
    assert 0 < report.p50_ms <= report.p90_ms <= report.p99_ms
    assert report.load_ms > 0
    assert report.first_inference_ms > 0
    # Each process has its own peak, and the larger file's holds at least its weights more.
    assert report.peak_memory_bytes > report.base_memory_bytes + 2000 * 2000 * 4
    assert report.peak_memory_bytes > measurement.reports["small"].peak_memory_bytes


def test_peak_memory_is_the_peak_and_not_what_is_held_now(make_onnx: MakeOnnx) -> None:
    runner = InProcessRunner(make_onnx(), SETTINGS)
    runner.open()
    # Above any peak that earlier tests left in this process.
    size = memory_bytes("VmHWM") - memory_bytes("VmRSS") + 50_000_000
    with mmap.mmap(-1, size) as ballast:
        ballast.write(b"x" * size)
    assert runner.finish().peak_memory_bytes > memory_bytes("VmRSS") + 40_000_000


def test_close_ends_the_process(make_onnx: MakeOnnx) -> None:
    runner = WorkerRunner(make_onnx(), SETTINGS)
    runner.open()
    assert len(runner.round()) == 5
    assert is_alive(runner.pid)
    runner.close()
    assert not is_alive(runner.pid)
    runner.close()


def test_a_worker_that_does_not_end_by_itself_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_CLOSE_SECONDS", 0.2)
    runner = WorkerRunner(
        tmp_path / "m.onnx", SETTINGS, command=(sys.executable, "-c", "import time; time.sleep(60)")
    )
    assert is_alive(runner.pid)
    runner.close()
    assert not is_alive(runner.pid)


def test_a_worker_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_START_SECONDS", 0.2)
    runner = WorkerRunner(
        tmp_path / "m.onnx", SETTINGS, command=(sys.executable, "-c", "import time; time.sleep(60)")
    )
    with pytest.raises(EdgeKDError, match=r"m\.onnx: no answer from the measuring process in 0 s"):
        runner.open()
    runner.close()


def test_a_worker_leaves_ctrl_c_to_its_parent(make_onnx: MakeOnnx) -> None:
    runner = WorkerRunner(make_onnx(), SETTINGS)
    try:
        runner.open()
        os.kill(runner.pid, signal.SIGINT)
        assert len(runner.round()) == 5
    finally:
        runner.close()


def test_what_a_library_prints_does_not_mix_with_the_answers(make_onnx: MakeOnnx) -> None:
    code = (
        "import os; from edgekd.profiles import worker; serve = worker.serve\n"
        "worker.serve = lambda *pipes: (os.write(1, b'noise\\n'), serve(*pipes)); worker.main()\n"
    )
    runner = WorkerRunner(make_onnx(), SETTINGS, command=(sys.executable, "-c", code))
    try:
        assert runner.open().runtime == "onnxruntime"
    finally:
        runner.close()


def test_a_killed_worker_is_one_line(make_onnx: MakeOnnx) -> None:
    runner = WorkerRunner(make_onnx(), SETTINGS)
    try:
        runner.open()
        os.kill(runner.pid, signal.SIGKILL)
        with pytest.raises(EdgeKDError, match=r"tiny\.onnx: the measuring process was killed") as caught:
            runner.round()
        assert "\n" not in str(caught.value)
    finally:
        runner.close()


def test_a_worker_killed_in_the_middle_of_a_round(make_onnx: MakeOnnx) -> None:
    runner = WorkerRunner(make_onnx(), RunSettings(runs=10**9, max_seconds_per_round=60))
    try:
        runner.open()
        threading.Timer(0.3, os.kill, (runner.pid, signal.SIGKILL)).start()
        with pytest.raises(EdgeKDError, match="was killed"):
            runner.round()
    finally:
        runner.close()


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
            EdgeKDError,
            "an instruction that this processor lacks",
        ),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
            ModelFileError,
            "crashed on this file; got 'SIGSEGV'",
        ),
        ("raise ImportError('no such thing')", EdgeKDError, "ended early; got 'ImportError: no such thing'"),
        ("raise SystemExit(3)", EdgeKDError, "ended early; got 'exit status 3'"),
    ],
)
def test_other_ways_to_die(tmp_path: Path, code: str, kind: type[Exception], message: str) -> None:
    runner = WorkerRunner(tmp_path / "model.onnx", SETTINGS, command=(sys.executable, "-c", code))
    try:
        with pytest.raises(kind, match=message):
            runner.open()
    finally:
        runner.close()


def test_what_is_wrong_with_a_file_comes_back_as_its_own_error(make_onnx: MakeOnnx) -> None:
    with pytest.raises(ModelFileError, match="NoSuchOperator"):
        measure({"a": make_onnx(operator="NoSuchOperator")})
    with pytest.raises(ModelFileError, match="open dimensions besides the batch"):
        measure({"a": make_onnx(dims=("n", 3, "h", "w"))})
    with pytest.raises(ModelFileError, match="cannot be read"):
        measure({"a": Path("nowhere.onnx")})


def test_a_truncated_file_is_refused_before_any_process_starts(make_onnx: MakeOnnx) -> None:
    path = make_onnx()
    path.write_bytes(path.read_bytes()[:100])

    def start(path: Path, settings: RunSettings) -> WorkerRunner:
        raise AssertionError("started")

    with pytest.raises(ModelFileError, match="truncated"):
        measure({"a": path}, runner_factory=start)


def test_the_worker_ends_with_its_parent(make_onnx: MakeOnnx) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from edgekd.profiles.process import WorkerRunner; from edgekd.profiles.runner import RunSettings\n"
        "runner = WorkerRunner(Path(sys.argv[1]), RunSettings()); runner.open()\n"
        "print(runner.pid, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(make_onnx())], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 10
    while is_alive(worker) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_alive(worker)


def test_a_folder_with_a_numpy_of_its_own_does_no_harm(
    make_onnx: MakeOnnx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_onnx()
    (tmp_path / "numpy.py").write_text("raise RuntimeError('the wrong numpy')")
    monkeypatch.chdir(tmp_path)
    assert measure({"a": path}, rounds=1, runs=2, warmup=0).reports["a"].samples == 2
