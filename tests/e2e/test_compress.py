"""The whole job on digits, judged by code that shares nothing with the project's own checkers."""

from __future__ import annotations

import hashlib
import json
import lzma
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from onnx import numpy_helper
from PIL import Image

FILES = {
    "recipe.yaml", "run.json", "report.json", "report.md", "report.html",
    "baseline/student-fp32.onnx", "baseline/teacher-fp32.onnx",
    *(f"deploy/{device}/{name}" for device in ("cpu", "jetson-orin-nano")
      for name in ("model.onnx", "manifest.json", "run.py", "labels.json", "README.md")),
    *(f"stages/{stage}/{name}" for stage in ("00-teacher", "01-student", "02-distill", "03-prune", "04-quantize")
      for name in ("model.safetensors", "metrics.json", "model.json")),
}  # fmt: skip


def test_the_run_directory_holds_what_the_design_lists(whole):
    there = {str(path.relative_to(whole.out)) for path in whole.out.rglob("*") if path.is_file()}
    assert there >= FILES
    assert not [name for name in there if name.endswith((".tmp", ".tmp.onnx", ".part", "checkpoint.pt"))]
    resolved = yaml.safe_load((whole.out / "recipe.yaml").read_text())
    assert resolved["stages"][1]["prune"]["pattern"] == "2:4"  # a default, written out
    state = json.loads((whole.out / "run.json").read_text())
    done = {"teacher", "student", "distill", "prune", "quantize", "deploy/cpu", "deploy/jetson-orin-nano"}
    assert {name for name, facts in state["stages"].items() if facts["done"]} == done


def test_the_report_has_every_key_of_the_design(whole):
    report = whole.report
    assert report["recipe"].keys() >= {"name", "hash"} and report["recipe"]["name"] == "digits"
    assert report["task"] == "image-classification" and report["torch_device"] == "cpu"
    assert report["data"].keys() >= {"name", "train", "validation", "test"}
    assert sum(report["data"][split] for split in ("train", "validation", "test")) == 1797
    assert report["versions"].keys() >= {"torch", "onnx", "onnxruntime", "numpy", "edgekd"}
    assert report["seconds"] > sum(stage["seconds"] for stage in report["stages"])  # and the deployment
    names = ["teacher", "student", "distill", "prune", "quantize"]
    assert [stage["name"] for stage in report["stages"]] == names
    for stage in report["stages"]:
        assert stage.keys() >= {"name", "metrics", "params", "nonzero_params", "macs", "seconds"}
        assert stage["metrics"].keys() >= {"top1", "agreement", "ece", "nll"}
        assert all(0 <= stage["metrics"][key] <= 1 for key in ("top1", "agreement", "ece"))
    for entry in report["deploy"]:
        assert entry.keys() >= {
            "device", "runtime", "file", "sha256", "size_bytes", "compressed_bytes", "metrics", "parity", "sparsity",
            "quantization", "latency", "baseline", "speedup_vs_student_fp32", "speedup_vs_teacher", "warnings",
        }  # fmt: skip
        assert entry["parity"].keys() >= {"samples", "agreement", "max_abs_diff", "reference"}
        assert entry["sparsity"].keys() >= {"pattern", "layers", "layers_total", "violations", "skipped"}
        assert entry["quantization"].keys() >= {"scheme", "integer_ops", "float_ops", "coverage"}
        assert entry["baseline"].keys() >= {"file", "latency"}
        file = whole.out / entry["file"]
        assert hashlib.sha256(file.read_bytes()).hexdigest() == entry["sha256"]
        assert file.stat().st_size == entry["size_bytes"]
        # zstd or xz: whichever the run had, within a third of what xz makes of it
        assert entry["compressed_bytes"] == pytest.approx(len(lzma.compress(file.read_bytes())), rel=0.34)
    cpu = whole.deployed("cpu")
    for latency in (*cpu["latency"], *cpu["baseline"]["latency"], *cpu["baseline"]["teacher"]["latency"]):
        assert latency.keys() >= {
            "kind", "device", "runtime", "runtime_version", "threads", "batch", "precision", "p50_ms", "p90_ms",
            "p99_ms", "mean_ms", "samples", "low_ms", "high_ms", "validated", "peak_memory_bytes", "model_sha256",
            "warnings",
        }  # fmt: skip
        assert latency["kind"] == "measured" and latency["threads"] == 1
        assert 0 < latency["p50_ms"] <= latency["p90_ms"] <= latency["p99_ms"]
        assert latency["peak_memory_bytes"] > 10e6
    assert cpu["latency"][0]["model_sha256"] == cpu["sha256"]
    ratio = cpu["baseline"]["latency"][0]["p50_ms"] / cpu["latency"][0]["p50_ms"]
    assert cpu["speedup_vs_student_fp32"] == pytest.approx(ratio, rel=0.3)
    board = whole.deployed("jetson-orin-nano")
    for latency in (
        *board["latency"],
        *board["baseline"]["latency"],
        *board["baseline"]["teacher"]["latency"],
    ):
        assert latency["kind"] == "estimated" and latency["samples"] == 0 and latency["p99_ms"] is None
        assert 0 < latency["low_ms"] < latency["p50_ms"] < latency["high_ms"]
    assert board["latency"][0]["model_sha256"] == board["sha256"]
    assert board["speedup_vs_teacher"] is None  # a ratio that nobody measured
    assert any("estimated, not measured" in warning and "--host" in warning for warning in board["warnings"])


def test_report_pages_are_written_and_whole(whole):
    page = (whole.out / "report.html").read_text()
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    assert "http://" not in page.replace("http://www.w3.org", "") and "src=" not in page
    markdown = (whole.out / "report.md").read_text()
    for text in (page, markdown, whole.console):
        assert "distill" in text and "quantize" in text
    assert str(whole.out / "report.html") in whole.console


def test_what_each_stage_kept(whole):
    top1 = {stage["name"]: stage["metrics"]["top1"] for stage in whole.report["stages"]}
    assert top1["teacher"] > 0.95
    assert top1["student"] < 0.3  # untrained
    for name in ("distill", "prune", "quantize"):
        assert top1[name] > top1["teacher"] - 0.08, top1
    for device in ("cpu", "jetson-orin-nano"):
        assert abs(whole.deployed(device)["metrics"]["top1"] - top1["quantize"]) <= 0.02
    facts = {stage["name"]: stage for stage in whole.report["stages"]}
    assert facts["prune"]["nonzero_params"] < 0.6 * facts["distill"]["nonzero_params"]
    assert facts["distill"]["macs"] < facts["teacher"]["macs"] / 5
    history = facts["distill"]["history"]
    assert [entry["epoch"] for entry in history] == list(range(7))
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]
    # The cache: after the first epoch the teacher costs next to nothing.
    assert history[1]["teacher_seconds"] < 0.5 * history[0]["teacher_seconds"]


def weights(model: onnx.ModelProto) -> dict[str, tuple[np.ndarray, int]]:
    """Per convolution and linear node: its integer weights with the reduction axis in front of the groups.

    Not the first convolution where it reads neighbouring pixels as channels: no mask was made for those.
    """
    values = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    made = {output: node for node in model.graph.node for output in node.output}
    found = {}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        dequantize = made[node.input[1]]
        assert dequantize.op_type == "DequantizeLinear", node.name
        weight = values[dequantize.input[0]]
        assert weight.dtype == np.int8
        if "_pixels" in dequantize.input[0]:
            continue
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        axis = 0 if node.op_type == "MatMul" or (node.op_type == "Gemm" and not transposed) else 1
        found[node.name or node.output[0]] = np.moveaxis(weight, axis, -1)
    return found


@pytest.mark.parametrize("device", ["cpu", "jetson-orin-nano"])
def test_two_of_four_holds_in_the_integers_of_the_file(whole, device):
    model = onnx.load(whole.out / "deploy" / device / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    eligible = 0
    for name, weight in weights(model).items():
        if weight.shape[-1] % 4:
            continue
        eligible += 1
        groups = weight.reshape(-1, 4)
        assert ((groups != 0).sum(axis=1) <= 2).all(), name
        assert (groups != 0).any()
    entry = whole.deployed(device)
    assert eligible == 3 == entry["sparsity"]["layers"]
    assert entry["sparsity"]["violations"] == 0
    assert [skipped["name"] for skipped in entry["sparsity"]["skipped"]] == ["stem"]


def test_two_devices_get_two_files(whole):
    kinds = {}
    for device in ("cpu", "jetson-orin-nano"):
        path = whole.out / "deploy" / device / "model.onnx"
        model = onnx.load(path)
        types = {entry.name: entry.data_type for entry in model.graph.initializer}
        points = {types[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"}
        kinds[device] = points
        assert not [node for node in model.graph.node if node.op_type == "BatchNormalization"]
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
        (opset,) = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
        manifest = json.loads((path.parent / "manifest.json").read_text())
        assert manifest["opset"] == opset == whole.deployed(device)["opset"]
        assert manifest["scheme"] == whole.deployed(device)["quantization"]["scheme"]
    assert kinds == {"cpu": {onnx.TensorProto.UINT8}, "jetson-orin-nano": {onnx.TensorProto.INT8}}
    assert whole.deployed("cpu")["sha256"] != whole.deployed("jetson-orin-nano")["sha256"]
    assert whole.deployed("jetson-orin-nano")["runtime"] == "tensorrt"


def test_every_convolution_and_linear_runs_in_integers_and_parity_holds(whole):
    for entry in whole.report["deploy"]:
        assert entry["quantization"]["coverage"] == 1.0 and entry["quantization"]["float_ops"] == 0
        assert entry["quantization"]["integer_ops"] == 4
        assert entry["parity"]["samples"] == whole.report["data"]["test"]
        assert entry["parity"]["agreement"] >= 0.97


def digits_test_split(whole) -> tuple[list[Image.Image], np.ndarray]:
    from edgekd.data.open import open_data
    from edgekd.recipe import DataRecipe

    test = open_data(DataRecipe(path="builtin:digits"), base=Path()).test
    return [test.source.image(int(index)) for index in test.indices], test.labels


def answers(path: Path, images: list[Image.Image], mean: float, std: float) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    pixels = np.stack([np.asarray(image, np.float32) for image in images])[:, None] / 255
    (logits,) = session.run(None, {session.get_inputs()[0].name: (pixels - mean) / std})
    return logits


@pytest.mark.parametrize("device", ["cpu", "jetson-orin-nano"])
def test_the_reported_accuracy_is_that_of_the_file(whole, device):
    images, labels = digits_test_split(whole)
    logits = answers(whole.out / "deploy" / device / "model.onnx", images, 0.3, 0.35)
    assert (logits.argmax(1) == labels).mean() == pytest.approx(whole.deployed(device)["metrics"]["top1"])


def test_the_bundle_classifies_images_by_itself(whole, tmp_path):
    images, _ = digits_test_split(whole)
    folder = whole.out / "deploy" / "cpu"
    names = json.loads((folder / "labels.json").read_text())
    for number, image in enumerate(images[:8]):
        image.save(tmp_path / f"{number}.png")
    files = [str(tmp_path / f"{number}.png") for number in range(8)]
    done = subprocess.run([sys.executable, "-I", str(folder / "run.py"), *files], capture_output=True, text=True,
                          check=True)  # fmt: skip
    printed = [line.split("\t")[0] for line in done.stdout.splitlines()]
    expected = answers(folder / "model.onnx", images[:8], 0.3, 0.35).argmax(1)
    assert printed == [names[k] for k in expected] and done.stderr == ""


def test_a_line_after_each_epoch_and_nothing_else_on_stderr(whole):
    # On a slow machine a long task says now and then how far it is.
    lines = [line for line in whole.progress.splitlines() if not re.fullmatch(r".+: \d+/\d+ \(.+\)", line)]
    assert re.fullmatch(r"digits: [\d,]+ images to train, .+ 10 classes; read as 1x8x8", lines.pop(0))
    assert lines.pop(0).startswith("student: the weights are what student() returned")
    assert [line.split(":")[0] for line in lines] == [
        *(f"distill epoch {k}/7" for k in range(1, 8)), *(f"prune epoch {k}/3" for k in range(1, 4)),
        *(f"quantize epoch {k}/2" for k in range(1, 3)),
    ]  # fmt: skip
    assert all("loss" in line and "validation top1" in line for line in lines)
