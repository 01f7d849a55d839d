"""Other roads through the same pipeline, each as small as it can be."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from PIL import Image

KD = {"kd": {"temperature": 3}}
QUICK = {"epochs": 1, "batch_size": 32, "augment": {"hflip": 0}, "objectives": KD}


@pytest.fixture
def compressed(edgekd, recipe, tmp_path):
    """Run the small recipe with changes; its report."""

    def run(*flags: object, **changes: object) -> dict:
        done = edgekd("compress", recipe(**changes), "--out", tmp_path / "out", *flags)
        assert done.code == 0, done.err
        return json.loads((tmp_path / "out" / "report.json").read_text())

    return run


@pytest.fixture
def unlabelled(tmp_path):
    """120 digits as images in one folder; their names say nothing."""
    from sklearn.datasets import load_digits

    folder = tmp_path / "unlabelled"
    folder.mkdir()
    for number, pixels in enumerate(load_digits().images[:120]):
        Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(folder / f"{number:03}.png")
    return folder


def test_the_teacher_itself_quantized(compressed):
    """`student: same`, quantize alone: close to the teacher without any long training."""
    report = compressed(student="same", stages=[{"quantize": {**QUICK, "lr": 1e-4}}])
    teacher, student, _ = report["stages"]
    assert student["metrics"] == teacher["metrics"] and student["params"] == teacher["params"]
    (entry,) = report["deploy"]
    assert entry["metrics"]["top1"] > teacher["metrics"]["top1"] - 0.03
    assert entry["sparsity"] is None and entry["quantization"]["coverage"] == 1.0
    assert entry["size_bytes"] < 0.5 * entry["baseline"]["size_bytes"]
    # Both fp32 files are the same one, which is evaluated and measured once.
    own, teachers = entry["baseline"], entry["baseline"]["teacher"]
    assert all(own[key] == teachers[key] for key in ("latency", "metrics", "size_bytes", "compressed_bytes"))
    assert entry["speedup_vs_teacher"] == entry["speedup_vs_student_fp32"] and own["file"] != teachers["file"]


def test_distillation_alone_deploys_fp32(compressed, tmp_path):
    report = compressed(stages=[{"distill": QUICK}])
    (entry,) = report["deploy"]
    assert entry["quantization"] is None and entry["latency"][0]["precision"] == "fp32"
    assert entry["parity"]["agreement"] == 1.0
    model = onnx.load(tmp_path / "out" / "deploy" / "cpu" / "model.onnx")
    assert not {node.op_type for node in model.graph.node} & {"QuantizeLinear", "BatchNormalization"}


def test_pruning_without_quantization_keeps_the_zeros_in_the_file(compressed):
    report = compressed(stages=[{"prune": {**QUICK, "pattern": "1:4"}}])
    (entry,) = report["deploy"]
    assert entry["sparsity"]["pattern"] == "1:4" and entry["sparsity"]["violations"] == 0
    assert entry["sparsity"]["layers"] == 3 and entry["quantization"] is None


def test_without_labels_the_teacher_is_the_only_target(edgekd, saved_teacher, nets, unlabelled, tmp_path):
    """The shipped recipe by flags, on a folder of images without classes."""
    settings = ["distill.epochs=1", "distill.batch_size=16", "quantize.epochs=1", "quantize.batch_size=16",
                "profile.rounds=1", "profile.runs=5"]  # fmt: skip
    done = edgekd(
        "compress", "label-free", "--teacher", saved_teacher, "--student", f"torch:{nets}/nets.py:student",
        "--data", unlabelled, "--out", tmp_path / "out", *(part for s in settings for part in ("--set", s)),
    )  # fmt: skip
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    for facts in (*report["stages"], *report["deploy"]):
        assert facts["metrics"]["top1"] is None and facts["metrics"]["agreement"] is not None
    assert report["stages"][0]["metrics"]["agreement"] == 1.0
    names = json.loads((tmp_path / "out" / "deploy" / "cpu" / "labels.json").read_text())
    assert names == [str(k) for k in range(10)]  # the teacher's own
    assert "agreement" in done.out


def test_a_black_box_teacher(compressed, onnx_file, edgekd, recipe, tmp_path):
    """An ONNX file as the teacher is its own baseline; its features cannot be asked for."""
    report = compressed(
        teacher=f"onnx:{onnx_file}", input={"mean": [0.3], "std": [0.35]}, stages=[{"quantize": QUICK}]
    )
    assert report["stages"][0]["metrics"]["top1"] > 0.9
    assert report["deploy"][0]["baseline"]["teacher"]["file"] == "teacher.onnx"
    assert report["deploy"][0]["speedup_vs_teacher"] > 0
    features = {**QUICK, "objectives": {"attention": {}}}
    refused = edgekd("compress", recipe(teacher=f"onnx:{onnx_file}", stages=[{"distill": features}]),
                     "--out", tmp_path / "other")  # fmt: skip
    assert refused.code == 2 and "black box" in refused.err and not (tmp_path / "other").exists()


def test_without_a_teacher(compressed):
    report = compressed(teacher=None, stages=[{"distill": {**QUICK, "objectives": {"ce": {}}}}])
    assert [stage["name"] for stage in report["stages"]] == ["student", "distill"]
    assert report["stages"][1]["metrics"]["agreement"] is None
    assert "teacher" not in report["deploy"][0]["baseline"] or not report["deploy"][0]["baseline"]["teacher"]


def test_broken_images_within_the_limit_are_named_and_skipped(edgekd, recipe, photos, tmp_path):
    folder = photos(**{str(k): 12 for k in range(10)})
    content = (folder / "3" / "5.png").read_bytes()
    (folder / "3" / "5.png").write_bytes(content[: len(content) // 2])
    path = recipe(
        data={"path": str(folder), "max_broken": 1}, stages=[{"distill": {**QUICK, "batch_size": 16}}]
    )
    done = edgekd("compress", path, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert any("3/5.png" in warning for warning in report["warnings"])
    assert sum(report["data"][split] for split in ("train", "validation", "test")) == 119
    assert "3/5.png" in done.out


def test_a_missed_limit_fails_and_keeps_the_files(edgekd, recipe, tmp_path):
    out = tmp_path / "out"
    path = recipe(stages=[{"distill": QUICK}])
    done = edgekd("compress", path, "--out", out, "--max-accuracy-drop", "0.01")
    assert done.code == 1 and "fell further under the teacher" in done.err and done.err.count("edgekd: ") == 1
    assert (out / "deploy" / "cpu" / "model.onnx").exists() and (out / "report.html").exists()
    done = edgekd(
        "compress", recipe(stages=[{"distill": QUICK}]), "--out", tmp_path / "two", "--max-latency-ms", "1e-6"
    )
    assert done.code == 1 and "slower than the recipe allows" in done.err
