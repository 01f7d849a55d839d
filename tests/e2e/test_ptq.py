"""Post-training quantization through the command line: no training, no labels, the same exports and checks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

PTQ = {"quantize": {"method": "ptq", "calibration_samples": 64}}


@pytest.fixture
def compress(edgekd, recipe, nets, tmp_path: Path):
    def run(stage=PTQ, **changes):
        changes = {"student": "same", "stages": [stage], "export": {"choose": "as-trained"}, **changes}
        out = tmp_path / "out"
        done = edgekd("compress", recipe(**changes), "--out", out)
        return done, out

    return run


def test_a_recipe_of_one_stage_needs_no_training(compress):
    done, out = compress()
    assert done.code == 0, done.err
    assert "epoch" not in done.err
    report = json.loads((out / "report.json").read_text())
    (entry,) = report["deploy"]
    assert entry["quantization"]["coverage"] == 1.0
    assert entry["parity"]["agreement"] >= 0.98
    stages = {stage["name"]: stage for stage in report["stages"]}
    assert stages["quantize"]["metrics"]["agreement"] >= 0.97
    assert stages["quantize"]["history"] == []
    facts = json.loads((out / "stages" / "02-quantize" / "metrics.json").read_text())["facts"]
    assert facts["method"] == "ptq" and facts["calibration"]["samples"] == 64
    assert facts["calibration"]["split"] == "train" and facts["calibration"]["chosen"] == "even"
    assert facts["calibration"]["classes_seen"] == 10


def test_it_needs_no_labels(compress):
    done, _ = compress(data={"path": "builtin:digits", "max_train": 320, "labels": False})
    assert done.code == 0, done.err


def test_it_resumes_into_the_same_file(compress, edgekd, tmp_path):
    done, out = compress()
    first = json.loads((out / "report.json").read_text())["deploy"][0]["sha256"]
    state = json.loads((out / "run.json").read_text())
    del state["stages"]["deploy/cpu"]
    (out / "run.json").write_text(json.dumps(state))
    done = edgekd("compress", tmp_path / "recipe.yaml", "--out", out, "--resume")
    assert done.code == 0, done.err
    assert json.loads((out / "report.json").read_text())["deploy"][0]["sha256"] == first


def test_settings_of_training_are_refused_in_one_line(compress):
    done, _ = compress({"quantize": {"method": "ptq", "epochs": 3}})
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1
    assert "epochs" in done.err and "belongs to method qat" in done.err


def test_a_target_by_labels_needs_labels(compress):
    stage = {"quantize": {"method": "ptq", "max_accuracy_drop": 0.01}}
    done, _ = compress(stage, data={"path": "builtin:digits", "max_train": 320, "labels": False})
    assert done.code == 2 and "use min_agreement" in done.err


def test_the_shipped_recipe_and_smoothquant_stand_side_by_side(edgekd, nets, digits_teacher, tmp_path):
    teacher = f"torch:{nets}/nets.py:teacher@{nets}/teacher.safetensors"
    quick = ["--set", "profile.rounds=1", "--set", "profile.runs=5", "--set", "export.choose=as-trained"]
    for name, more in (("plain", []), ("smooth", ["--set", "quantize.smooth=auto"])):
        done = edgekd("compress", "ptq", "--teacher", teacher, "--data", "builtin:digits", "--out",
                      tmp_path / name, *quick, *more)  # fmt: skip
        assert done.code == 0, done.err
    done = edgekd("compare", tmp_path / "plain", tmp_path / "smooth", "--json", "-")
    files = {file["run"]: file for file in done.json()["files"]}
    assert files["plain"]["method"] == "PTQ" and files["smooth"]["method"] == "PTQ, SmoothQuant auto"
    page = (tmp_path / "plain" / "report.html").read_text()
    assert "Activations rounded to zero" in page and "calibrated with 200 of" in page
