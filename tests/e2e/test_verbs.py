"""Every verb on what a run left, each as JSON: one document on stdout, nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml


@pytest.fixture
def deployed(whole) -> Path:
    return whole.out / "deploy" / "cpu" / "model.onnx"


def test_report_draws_the_pages_again(edgekd, whole, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(whole.out, out)
    (out / "report.html").unlink()
    found = edgekd("report", out, "--json", "-").json()
    assert found["deploy"] == whole.report["deploy"]
    assert (out / "report.html").read_text() == (whole.out / "report.html").read_text()
    assert "quantize" in edgekd("report", out).out


def test_compare_sets_runs_side_by_side(edgekd, whole, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(whole.out, other)
    report = json.loads((other / "report.json").read_text())
    report["deploy"][0]["metrics"]["top1"] = 0.5
    (other / "report.json").write_text(json.dumps(report))
    files = edgekd("compare", whole.out, other, "--json", "-").json()["files"]
    found = {(file["run"], file["device"]): file["top1"] for file in files}
    own = {entry["device"]: entry["metrics"]["top1"] for entry in whole.report["deploy"]}
    (first, *_), changed = own, report["deploy"][0]["device"]
    assert first == changed and len(found) == len(files) == 2 * len(own)
    for device, top1 in own.items():
        assert found[whole.out.name, device] == top1
        assert found["other", device] == (0.5 if device == changed else top1)
    shown = edgekd("compare", whole.out, other).out
    assert "50.00" in shown and "jetson" in shown.lower()


def test_evaluate_gives_what_the_report_says(edgekd, whole, deployed):
    found = edgekd("evaluate", deployed, "--data", "builtin:digits", "--json", "-").json()
    expected = whole.deployed("cpu")["metrics"]
    assert found["samples"] == whole.report["data"]["test"]
    for name in ("top1", "ece", "nll"):
        assert found["metrics"][name] == pytest.approx(expected[name], abs=1e-5)
    told = edgekd("evaluate", deployed, "--data", "builtin:digits").out
    assert f"ECE {expected['ece']:.4f}" in told and f"top-1 {100 * expected['top1']:.2f} %" in told
    train = edgekd("evaluate", deployed, "--data", "builtin:digits", "--split", "train", "--json", "-").json()
    assert train["samples"] == whole.report["data"]["train"]


def test_check_reads_the_file(edgekd, deployed, whole, onnx_file):
    found = edgekd("check", deployed, "--device", "cpu", "--json", "-").json()
    assert found["loads"] and found["precision"] == "int8"
    assert found["coverage"]["coverage"] == 1.0 and found["sparsity"]["violations"] == 0
    assert found["sparsity"]["layers"] == 3
    dense = edgekd("check", onnx_file, "--json", "-").json()
    assert dense["sparsity"]["layers"] == 0 and any("int8 would be faster" in line for line in dense["slow"])
    assert "in none of 4 layers" in edgekd("check", onnx_file).out
    assert "in 3 of 4 layers" in edgekd("check", deployed).out
    # the same file on a board whose runtime is older
    refused = edgekd("check", deployed, "--device", "jetson-nano")
    assert refused.code == 1 and "cannot take the opset" in refused.out
    board = whole.out / "deploy" / "jetson-orin-nano" / "model.onnx"
    assert (
        edgekd("check", board, "--device", "jetson-orin-nano", "--json", "-").json()["coverage"]["coverage"]
        == 1.0
    )


def test_profile_compares_files(edgekd, deployed, whole):
    baseline = whole.out / "baseline" / "teacher-fp32.onnx"
    found = edgekd("profile", baseline, deployed, "--rounds", 2, "--runs", 10, "--json", "-").json()
    assert found["reports"].keys() == {"teacher-fp32.onnx", "model.onnx"}
    report = found["reports"]["model.onnx"]
    assert report["precision"] == "int8" and report["samples"] == 20
    ratio = found["speedup_over_first"]["model.onnx"]
    assert ratio["low"] <= ratio["value"] <= ratio["high"]
    elsewhere = edgekd("profile", deployed, "--device", "raspberry-pi-5", "--method", "measure")
    assert elsewhere.code == 2 and "is not this machine" in elsewhere.err


def test_export_writes_a_stage_as_onnx(edgekd, whole, tmp_path):
    file = tmp_path / "distilled.onnx"
    found = edgekd("export", whole.out / "stages" / "02-distill", "-o", file, "--json", "-").json()
    assert found["opset"] == 20 and found["weights"] == "run" and found["size_bytes"] == file.stat().st_size
    assert 0 < found["max_abs_diff"] < 1e-4  # of equal images of zeros it would be 0
    top1 = edgekd("evaluate", file, "--data", "builtin:digits", "--json", "-").json()["metrics"]["top1"]
    assert (
        top1
        == next(stage for stage in whole.report["stages"] if stage["name"] == "distill")["metrics"]["top1"]
    )
    old = edgekd(
        "export", whole.out / "stages" / "02-distill", "-o", file, "--device", "jetson-nano", "--json", "-"
    )
    assert old.json()["opset"] == 13


def test_listings(edgekd):
    recipes = {row["name"]: row for row in edgekd("recipes", "--json", "-").json()}
    assert recipes.keys() >= {"fast", "jetson-2to4", "label-free", "demo"}
    assert recipes["jetson-2to4"]["stages"] == ["distill", "prune", "quantize"]
    objectives = {row["name"]: row for row in edgekd("objectives", "--json", "-").json()}
    assert objectives.keys() >= {"ce", "kd", "squarehead", "attention"}
    assert "temperature" in objectives["kd"]["settings"]
    assert "jetson-2to4" in edgekd("recipes").out and "squarehead" in edgekd("objectives").out


def test_devices(edgekd, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    names = [row["name"] for row in edgekd("devices", "list", "--json", "-").json()]
    assert {"cpu", "jetson-orin-nano", "raspberry-pi-5"} <= set(names)
    shown = edgekd("devices", "show", "raspberry-pi-5", "--json", "-").json()
    assert all(fact["source"] for fact in shown["facts"])
    here = edgekd("devices", "detect", "--json", "-").json()
    assert here["name"] not in names and here["cores"] >= 1  # a name that `devices add` takes
    mine = yaml.safe_load(edgekd("devices", "show", "raspberry-pi-5", "--yaml").out) | {"name": "my-board"}
    file = tmp_path / "my-board.yaml"
    file.write_text(yaml.safe_dump(mine))
    assert edgekd("devices", "add", file).code == 0
    assert "my-board" in edgekd("devices", "list").out
    assert edgekd("devices", "show", "my-board", "--json", "-").json()["title"] == shown["title"]


def test_doctor(edgekd):
    found = edgekd("doctor", "--json", "-").json()
    assert found["packages"]["onnxruntime"] and "CPUExecutionProvider" in found["providers"]
    assert "onnxruntime" in edgekd("doctor").out


def test_json_to_a_file_leaves_the_table_on_stdout(edgekd, tmp_path):
    done = edgekd("recipes", "--json", tmp_path / "recipes.json")
    assert "jetson-2to4" in done.out
    assert {row["name"] for row in json.loads((tmp_path / "recipes.json").read_text())} >= {"fast"}


@pytest.mark.slow
def test_a_real_process_prints_results_on_stdout_and_what_it_does_alone_on_stderr(recipe, tmp_path):
    """What no test inside this process can see: warnings of the libraries at import, and their own log."""
    command = [
        sys.executable,
        "-m",
        "edgekd",
        "compress",
        str(recipe()),
        "--out",
        str(tmp_path / "out"),
        "--json",
        "-",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["recipe"]["name"] == "digits"
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [
        "digits", "student", "distill epoch 1/1", "prune epoch 1/1", "quantize epoch 1/1"
    ]  # fmt: skip
