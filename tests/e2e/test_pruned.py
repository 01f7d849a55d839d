"""Channels, masks and integers in one recipe, through the command line; the pruned folder as a teacher."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekd.export.weights import load_onnx, stored_weights

QUICK = {
    "epochs": 1,
    "batch_size": 32,
    "lr": 5e-3,
    "augment": {"hflip": 0},
    "objectives": {"kd": {"temperature": 3}},
}
STAGES = [
    {"prune": {**QUICK, "method": "channels", "macs": 0.5, "round_to": 4, "steps": 2}},
    {"prune": QUICK},
    {"quantize": {**QUICK, "lr": 1e-3}},
]
DATA = {"path": "builtin:digits", "max_train": 320}


@pytest.fixture(scope="module")
def pruned(edgekd, nets, digits_teacher, tmp_path_factory) -> Path:
    import yaml

    folder = tmp_path_factory.mktemp("pruned")
    recipe = nets / "pruned.yaml"
    recipe.write_text(yaml.safe_dump({"teacher": digits_teacher, "student": "same", "data": DATA, "stages": STAGES,
                                      "profile": {"rounds": 1, "runs": 5, "warmup": 1}}))  # fmt: skip
    done = edgekd("compress", recipe, "--out", folder / "out")
    assert done.code == 0, done.err
    return folder / "out"


def test_half_of_the_arithmetic_is_gone_and_every_promise_holds(pruned):
    report = json.loads((pruned / "report.json").read_text())
    teacher, _, channels, masked, _ = report["stages"]
    assert channels["macs"] <= 0.525 * teacher["macs"] and masked["macs"] == channels["macs"]
    assert masked["nonzero_params"] < 0.62 * channels["nonzero_params"]
    assert channels["metrics"]["top1"] > teacher["metrics"]["top1"] - 0.1
    (entry,) = report["deploy"]
    assert entry["sparsity"]["violations"] == 0 and entry["parity"]["agreement"] >= 0.98
    # Whichever file was the fastest: a first layer over wide pixels writes several neighbours at once.
    weights = [weight for weight in stored_weights(load_onnx(pruned / entry["file"])) if not weight.pixels]
    sizes = [max(weight.values.shape) for weight in weights if weight.values.ndim == 4]
    assert sizes and max(sizes) < 48


def test_a_pruned_folder_is_a_teacher(edgekd, pruned, tmp_path):
    """Its own student, distilled with nothing to learn: the same answers, the same narrow layers."""
    stage = pruned / "stages" / "02-prune"
    assert json.loads((stage / "model.json").read_text())["surgery"]
    recipe = tmp_path / "again.yaml"
    recipe.write_text(json.dumps({
        "teacher": str(stage), "student": "same", "data": DATA,
        "stages": [{"prune": {**QUICK, "epochs": 0, "method": "channels", "ratio": 0.3, "round_to": 2}}],
        "profile": {"rounds": 1, "runs": 5, "warmup": 1},
    }))  # fmt: skip
    done = edgekd("compress", recipe, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    first, second, third = json.loads((tmp_path / "out" / "report.json").read_text())["stages"]
    before = next(
        s for s in json.loads((pruned / "report.json").read_text())["stages"] if s["name"] == "prune"
    )
    assert first["metrics"]["top1"] == before["metrics"]["top1"] and first["params"] == before["params"]
    assert second["params"] == first["params"] and third["macs"] < 0.7 * first["macs"]
    cuts = json.loads((tmp_path / "out" / "stages" / "02-prune" / "model.json").read_text())["surgery"]
    assert len(cuts) == 3


@pytest.mark.slow
def test_a_killed_run_resumes_into_the_same_bytes(edgekd, nets, pruned, tmp_path):
    recipe, out = nets / "pruned.yaml", tmp_path / "out"
    command = [sys.executable, "-m", "edgekd", "compress", str(recipe), "--out", str(out), "--resume"]
    for moment in ("02-prune/step-1/checkpoint.pt", "02-prune/checkpoint.pt", "03-prune-2/metrics.json"):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ)
        )
        deadline = time.monotonic() + 240
        while not (out / "stages" / moment).exists():
            assert process.poll() is None and time.monotonic() < deadline, moment
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert edgekd("compress", recipe, "--out", out, "--resume").code == 0
    for file in pruned.glob("stages/*/*.safetensors"):
        assert (out / file.relative_to(pruned)).read_bytes() == file.read_bytes(), file
    assert not list(out.rglob("step-*")) and not list(out.rglob("checkpoint.pt"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "channels"}, "recipe.yaml: stages[0]: no target; give one of ratio, macs, latency_ms"),
        ({"method": "channels", "ratio": 0.5, "macs": 0.5}, "ratio and macs exclude each other"),
        ({"method": "channels", "ratio": 1.5}, "stages[0].ratio"),
        (
            {"method": "chanels", "ratio": 0.5},
            "unknown method; got 'chanels'; allowed: nm, channels, depth, low-rank",
        ),
        ({"method": "channels", "ratio": 0.5, "pattern": "2:4"}, "belongs to method nm"),
        ({"method": "channels", "ratio": 0.99}, "would remove all 24 channels"),
        ({"method": "depth"}, "give one of blocks and ratio"),
        ({"method": "low-rank", "compression": 0.5}, "compression"),
    ],
)
def test_bad_targets_are_one_line(edgekd, recipe, tmp_path, settings, message):
    done = edgekd(
        "compress",
        recipe(stages=[{"prune": {**QUICK, **settings}}], student="same"),
        "--out",
        tmp_path / "out",
    )
    assert done.code == 2 and len(done.err.strip().splitlines()) == 1
    assert message in done.err
    assert not (tmp_path / "out").exists()


def test_masks_before_a_cut_are_refused(edgekd, recipe, tmp_path):
    stages = [{"prune": QUICK}, {"prune": {**QUICK, "method": "channels", "ratio": 0.5}}]
    done = edgekd("compress", recipe(stages=stages), "--out", tmp_path / "out")
    assert done.code == 2 and "nm must stand after channels" in done.err
