"""Post-training quantization of a text encoder: batches of unequal length, token ids, layer norms."""

from __future__ import annotations

import csv
import json

import yaml


def test_a_text_encoder_is_quantized_without_training(edgekd, news, text_folder, tmp_path):
    with (tmp_path / "news.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ("text", "label", "split"))
        writer.writeheader()
        writer.writerows(news(200))
    document = {
        "name": "news", "task": "text-classification", "profile": {"rounds": 1, "runs": 5, "warmup": 1},
        "teacher": None, "student": f"hf:{text_folder(vocab_size=300, hidden_size=48)}",
        "data": {"path": "news.csv", "split_column": "split"}, "input": {"max_length": 24},
        "stages": [
            {"distill": {"batch_size": 32, "lr": 3e-3, "epochs": 4, "objectives": {"ce": {}}}},
            {"quantize": {"method": "ptq", "calibration_samples": 64, "smooth": "auto", "min_agreement": 0.9}},
        ],
    }  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(document))
    done = edgekd("compress", path, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    facts = json.loads(next((tmp_path / "out" / "stages").glob("*-quantize/metrics.json")).read_text())[
        "facts"
    ]
    assert facts["calibration"]["samples"] == 64 and facts["target_met"] is True
    assert facts["zero_shares"]
    (entry,) = json.loads((tmp_path / "out" / "report.json").read_text())["deploy"]
    assert entry["parity"]["agreement"] > 0.97
