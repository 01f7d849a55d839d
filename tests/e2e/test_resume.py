"""A run that is killed, interrupted or out of disk goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest

RECIPE = {
    "data": {"path": "builtin:digits", "max_train": 640},
    "stages": [
        {"distill": {"epochs": 3, "batch_size": 32, "lr": 1e-2, "teacher_cache": True, "ema_decay": 0.9}},
        {
            "prune": {
                "epochs": 3,
                "batch_size": 32,
                "saliency": "wanda",
                "permute": True,
                "teacher_cache": True,
            }
        },
        {"quantize": {"epochs": 3, "batch_size": 32}},
    ],
}


def start(recipe: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edgekd", "compress", str(recipe), "--out", str(out), "--resume"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ),
        preexec_fn=_hear_sigint,
    )  # fmt: skip


def _hear_sigint() -> None:
    """A shell's background job, as a CI run may be, hands on an ignored SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def stop_when(
    process: subprocess.Popen[str], there: Callable[[], bool], how: signal.Signals
) -> tuple[int, str]:
    """Send the signal as soon as ``there()``; the exit code and what stood on stderr."""
    deadline = time.monotonic() + 240
    while not there():
        assert process.poll() is None, f"it ended before it could be stopped: {process.communicate()}"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def files(out: Path) -> dict[str, bytes]:
    wanted = [
        *out.glob("stages/*/*.safetensors"),
        *out.glob("deploy/*/model.onnx"),
        *out.glob("baseline/*.onnx"),
    ]
    return {str(path.relative_to(out)): path.read_bytes() for path in wanted}


@pytest.mark.slow
def test_a_run_that_is_stopped_again_and_again_ends_in_the_same_bytes(edgekd, recipe, tmp_path):
    """SIGINT once, then SIGKILL at four moments, each time resumed; against one run without a stop."""
    path = recipe(**RECIPE)
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    assert edgekd("compress", path, "--out", undisturbed).code == 0
    stages = out / "stages"
    code, err = stop_when(start(path, out), (stages / "02-distill" / "checkpoint.pt").exists, signal.SIGINT)
    assert code == 130
    assert [
        line for line in err.splitlines() if " epoch " not in line and ": the weights are" not in line
    ] == [
        "digits: 576 images to train, 64 to validate, 180 to test, 10 classes; read as 1x8x8",
        "edgekd: interrupted; go on with the same command and --resume",
    ]
    moments = {
        "between two stages": (stages / "02-distill" / "metrics.json").exists,
        "while pruning": (stages / "03-prune" / "checkpoint.pt").exists,
        "while quantizing": (stages / "04-quantize" / "checkpoint.pt").exists,
        "while deploying": (out / "deploy" / "cpu" / "model.onnx").exists,
    }
    for moment, there in moments.items():
        code, err = stop_when(start(path, out), there, signal.SIGKILL)
        assert code == -signal.SIGKILL, (moment, err)
    (out / ".run.json.killed.tmp").write_text("half")  # what a kill inside a write leaves
    assert edgekd("compress", path, "--out", out, "--resume").code == 0
    expected, found = files(undisturbed), files(out)
    assert found.keys() == expected.keys() and len(expected) == 14
    assert [name for name in expected if found[name] != expected[name]] == []
    leftovers = [p for p in out.rglob("*") if p.suffix in (".tmp", ".part") or p.name == "checkpoint.pt"]
    assert leftovers == []
    assert (
        json.loads((out / "report.json").read_text())["deploy"][0]["metrics"]
        == (json.loads((undisturbed / "report.json").read_text())["deploy"][0]["metrics"])
    )


def test_a_finished_run_resumes_to_its_report_without_training(edgekd, whole, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(whole.out, out)
    before = files(out)
    done = edgekd("compress", whole.recipe, "--out", out, "--resume")
    assert done.code == 0 and " epoch " not in done.err
    assert files(out) == before
    state = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**state, "data": "0" * 64}))  # as if it had read other pictures
    done = edgekd("compress", whole.recipe, "--out", out, "--resume")
    assert done.code == 2 and "the data digits changed since the run began" in done.err


@contextmanager
def no_file_above(size: int):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("forget", "limit"),
    [
        (["quantize", "deploy/cpu"], 9_000),  # the stage's weights
        (["deploy/cpu"], 4_000),  # run.json, or the deployed file
        (["deploy/cpu"], 20_000),  # the teacher's fp32 file
        ([], 30_000),  # the page
    ],
)
def test_a_disk_that_takes_no_more_is_one_line_and_leaves_nothing_half_written(
    edgekd, whole, tmp_path, forget, limit
):
    out = tmp_path / "copy"
    shutil.copytree(whole.out, out)
    state = json.loads((out / "run.json").read_text())
    for name in forget:
        del state["stages"][name]
    (out / "run.json").write_text(json.dumps(state))
    for name in ("report.html", "report.md", "report.json"):
        (out / name).unlink()
    if forget:
        shutil.rmtree(out / "deploy")
        shutil.rmtree(out / "baseline")
    with no_file_above(limit):
        done = edgekd("compress", whole.recipe, "--out", out, "--resume")
    assert done.code == 2, done.err
    (line,) = [line for line in done.err.splitlines() if " epoch " not in line]
    assert line.startswith("edgekd: ") and "cannot be written" in line and "File too large" in line
    assert not list(out.rglob(".*.tmp"))
    assert edgekd("compress", whole.recipe, "--out", out, "--resume").code == 0
    assert files(out) == files(whole.out)
