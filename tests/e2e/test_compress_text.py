"""Texts through the command line: a teacher fine-tuned, then compressed, deployed, evaluated, measured."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import pytest
import yaml

BUDGET = {"rounds": 2, "runs": 5, "warmup": 1}
TRAIN = {"batch_size": 32, "lr": 3e-3}


@pytest.fixture(scope="module")
def folder(news, tmp_path_factory):
    """``news.csv`` (with a split column), ``several.jsonl`` (labels as lists), and what the runs leave."""
    path = tmp_path_factory.mktemp("text")
    rows = news(320)
    with (path / "news.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ("text", "label", "split"))
        writer.writeheader()
        writer.writerows(rows)
    with (path / "several.jsonl").open("w", encoding="utf-8") as stream:
        for row in rows:
            labels = [row["label"], *(["money"] if "dlrs" in row["text"] else [])]
            stream.write(json.dumps({**row, "label": labels}) + "\n")
    return path


def recipe(folder, name, **document):
    path = folder / f"{name}.yaml"
    base = {"name": name, "task": "text-classification", "profile": BUDGET}
    path.write_text(yaml.safe_dump({**base, **document}))
    return path


def done(edgekd, *arguments):
    found = edgekd(*arguments)
    assert found.code == 0, found.err
    return found


@pytest.fixture(scope="module")
def teacher(edgekd, folder, text_folder):
    """A run that fine-tunes a tiny encoder without a teacher; its stage folder is a model."""
    path = recipe(
        folder, "teacher", student=f"hf:{text_folder(vocab_size=300, hidden_size=48)}",
        data={"path": "news.csv", "split_column": "split"}, input={"max_length": 24},
        stages=[{"distill": {**TRAIN, "epochs": 6, "objectives": {"ce": {}}}}],
    )  # fmt: skip
    out = folder / "teacher-run"
    done(edgekd, "compress", path, "--out", out)
    return out


@pytest.fixture(scope="module")
def whole(edgekd, folder, teacher):
    path = recipe(
        folder, "small", teacher=str(teacher / "stages" / "02-distill"), student="same",
        data={"path": "news.csv", "split_column": "split"},
        stages=[
            {"distill": {**TRAIN, "epochs": 1, "teacher_cache": True, "objectives": {"kd": {}}}},
            {"prune": {**TRAIN, "epochs": 1, "teacher_cache": True, "objectives": {"kd": {}}}},
            {"quantize": {**TRAIN, "epochs": 1, "lr": 1e-3, "objectives": {"kd": {}}}},
        ],
    )  # fmt: skip
    out = folder / "run"
    found = done(edgekd, "compress", path, "--out", out)
    return out, json.loads((out / "report.json").read_text()), found


def test_the_run_keeps_its_promises(whole):
    out, report, _ = whole
    (entry,) = report["deploy"]
    assert report["task"] == "text-classification" and entry["metrics"]["top1"] > 0.8
    assert set(entry["metrics"]) >= {"top1", "agreement", "ece", "nll", "f1_macro"}
    assert entry["sparsity"]["violations"] == 0 and entry["parity"]["agreement"] > 0.97
    assert entry["latency"][0]["inputs"] == {"input_ids": [1, 24]}
    assert any("are longer than 24 tokens and are cut there" in line for line in report["warnings"])
    assert [stage["name"] for stage in report["stages"]] == [
        "teacher",
        "student",
        "distill",
        "prune",
        "quantize",
    ]
    assert (out / "cache").is_dir()


def test_the_baseline_stands_in_report_and_tables(whole):
    out, report, found = whole
    assert report["text_baseline"]["name"] == "TF-IDF + linear SVM"
    assert report["text_baseline"]["metrics"]["top1"] > 0.9
    for page in (found.out, (out / "report.md").read_text(), (out / "report.html").read_text()):
        assert "TF-IDF + linear SVM" in page and "macro F1" in page


def test_evaluate_gives_what_the_report_says(edgekd, whole, folder):
    out, report, _ = whole
    model = out / "deploy" / "cpu" / "model.onnx"
    test = folder / "test-rows"
    test.mkdir()
    with (folder / "news.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for split in ("train", "test"):
        with (test / f"{split}.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, ("text", "label", "split"))
            writer.writeheader()
            writer.writerows(row for row in rows if row["split"] == split)
    found = edgekd("evaluate", model, "--data", test, "--json", "-").json()
    assert found["samples"] == 64
    assert found["metrics"]["top1"] == pytest.approx(report["deploy"][0]["metrics"]["top1"])
    assert found["metrics"]["f1_macro"] == pytest.approx(report["deploy"][0]["metrics"]["f1_macro"])
    shown = done(edgekd, "evaluate", model, "--data", test, "--max-length", "8")
    assert "macro F1" in shown.out and "longer than 8 tokens" in shown.err
    other = folder / "elsewhere"
    other.mkdir()
    (other / "model.onnx").write_bytes(model.read_bytes())
    lost = edgekd("evaluate", other / "model.onnx", "--data", test)
    assert lost.code == 2 and "tokenizer" in lost.err and lost.err.count("\n") == 1
    given = ("--tokenizer", model.parent / "tokenizer.json", "--json", "-")
    assert (
        edgekd("evaluate", other / "model.onnx", "--data", test, *given).json()["metrics"] == found["metrics"]
    )


def test_the_bundle_classifies(whole, folder):
    out, _, _ = whole
    texts = [
        "delta crude output fell by 9 thousand barrels a day",
        "northern net profit rose to 8 mln dlrs in the quarter",
    ]
    command = [sys.executable, "-I", str(out / "deploy" / "cpu" / "run.py"), *texts]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert ran.returncode == 0 and [line.split("\t")[0] for line in ran.stdout.splitlines()] == [
        "crude",
        "earn",
    ]


def test_check_export_and_profile_take_text(edgekd, whole, teacher, folder):
    out, _, _ = whole
    found = edgekd("check", out / "deploy" / "cpu" / "model.onnx", "--json", "-").json()
    assert found["loads"] and found["sparsity"]["violations"] == 0
    exported = done(
        edgekd,
        "export",
        teacher / "stages" / "02-distill",
        "-o",
        folder / "exported" / "t.onnx",
        "--json",
        "-",
    ).json()
    assert exported["input"] == [24] and (folder / "exported" / "tokenizer.json").exists()
    news = ("--data", folder / "news.csv", "--split-column", "split", "--json", "-")
    found = edgekd("evaluate", folder / "exported" / "t.onnx", *news).json()
    report = json.loads((teacher / "report.json").read_text())
    assert found["samples"] == 64 and found["metrics"]["top1"] == report["stages"][-1]["metrics"]["top1"]
    (folder / "exported" / "tokenizer.json").write_text("{}")
    refused = edgekd("export", teacher / "stages" / "02-distill", "-o", folder / "exported" / "u.onnx")
    assert refused.code == 2 and "another model's tokenizer" in refused.err
    shown = done(
        edgekd, "profile", folder / "exported" / "t.onnx", "--rounds", "1", "--runs", "5", "--shape", "1x10"
    ).out
    assert "on 10 random tokens" in shown


def test_several_labels_a_text(edgekd, folder, text_folder):
    path = recipe(
        folder, "several", student=f"hf:{text_folder(vocab_size=300, hidden_size=48)}",
        data={"path": "several.jsonl", "split_column": "split"}, input={"max_length": 24},
        stages=[{"distill": {**TRAIN, "epochs": 5, "objectives": {"ce": {}}}}],
    )  # fmt: skip
    out = folder / "several-run"
    done(edgekd, "compress", path, "--out", out)
    report = json.loads((out / "report.json").read_text())
    metrics = report["deploy"][0]["metrics"]
    assert metrics["top1"] is None and metrics["f1_micro"] > 0.8 and 0 < metrics["exact_match"] <= 1
    assert report["stages"][-1]["history"][0]["val_f1_micro"] is not None
    command = [
        sys.executable,
        "-I",
        str(out / "deploy" / "cpu" / "run.py"),
        "delta net profit rose to 8 mln dlrs in the quarter",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert {line.split("\t")[0] for line in ran.stdout.splitlines()} == {"earn", "money"}
    student = recipe(
        folder, "cached", teacher=str(out / "stages" / "02-distill"), student="same",
        data={"path": "several.jsonl", "split_column": "split"},
        stages=[{"distill": {**TRAIN, "epochs": 1, "teacher_cache": True, "objectives": {"kd": {}}}}],
    )  # fmt: skip
    refused = edgekd("compress", student, "--out", folder / "cached-run")
    assert refused.code == 2 and "teacher_cache" in refused.err and refused.err.strip().count("\n") == 0
    done(edgekd, "compress", student, "--out", folder / "cached-run", "--set", "distill.teacher_cache=false")


BAD = {
    "data.text_column=body": "no column for data.text_column; got 'body'",
    "distill.augment.mixup=0.3": "texts are not augmented",
    "task=image-classification": "news.csv",
    "input.max_length=400": "refuses an input of 400 tokens",
    "data.path=builtin:digits": "a set of images",
    "task=text": "text-classification",
}


@pytest.mark.parametrize("setting", BAD)
def test_bad_input_is_one_line_before_any_training(edgekd, folder, teacher, setting):
    path = recipe(
        folder, "bad", teacher=str(teacher / "stages" / "02-distill"), student="same",
        data={"path": "news.csv", "split_column": "split"}, stages=[{"distill": {"objectives": {"kd": {}}}}],
    )  # fmt: skip
    found = edgekd("compress", path, "--out", folder / "bad-run", "--set", setting)
    assert found.code == 2 and BAD[setting] in found.err and found.err.strip().count("\n") == 0, found.err
    assert not (folder / "bad-run").exists()
