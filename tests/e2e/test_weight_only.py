"""Weight-only int4 and int8 from the command line: a text encoder and a vision transformer."""

from __future__ import annotations

import csv
import json

import onnx
import pytest
import yaml


@pytest.fixture
def news_recipe(news, text_folder, tmp_path):
    """A recipe of a tiny BERT whose last stage is weight-only; ``quantize`` changes that stage."""
    with (tmp_path / "news.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ("text", "label", "split"))
        writer.writeheader()
        writer.writerows(news(200))

    def write(**quantize):
        document = {
            "name": "news", "task": "text-classification", "profile": {"rounds": 1, "runs": 5, "warmup": 1},
            "teacher": None, "student": f"hf:{text_folder(vocab_size=400, hidden_size=64, intermediate_size=128)}",
            "data": {"path": "news.csv", "split_column": "split"}, "input": {"max_length": 24},
            "export": {"min_agreement": 0.5},  # of 40 texts, by a network that has seen 160; the logits are looked at
            "stages": [
                {"distill": {"batch_size": 32, "lr": 3e-3, "epochs": 4, "objectives": {"ce": {}}}},
                {"quantize": {"method": "weight-only", **quantize}},
            ],
        }  # fmt: skip
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return write


def test_a_text_encoder_in_four_bits_with_gptq(edgekd, news_recipe, tmp_path):
    out = tmp_path / "out"
    recipe = news_recipe(bits=4, algorithm="gptq", calibration_samples=64)
    done = edgekd("compress", recipe, "--out", out)
    assert done.code == 0, done.err
    (entry,) = json.loads((out / "report.json").read_text())["deploy"]
    assert entry["parity"]["max_abs_diff"] < 0.3
    told = entry["quantization"]
    assert told["scheme"] == "int4 weights in blocks of 32 with zero points"
    assert told["integer_ops"] == 25 and told["float_ops"] == 0, "4 blocks of 6 and the classifier"
    # 4 bits a weight, 4 bytes of scale and half a byte of zero point for 32 of them.
    assert told["weight_bytes"] == pytest.approx(told["weight_bytes_fp32"] * (0.5 + 4.5 / 32) / 4, rel=0.01)
    assert any(line.startswith("weight-only: the weights of 25 linear layers") for line in entry["warnings"])
    graph = onnx.load(out / entry["file"]).graph
    assert sum(node.op_type == "MatMulNBits" for node in graph.node) == 25
    tables = {
        tensor.name: tensor.data_type for tensor in graph.initializer if "word_embeddings" in tensor.name
    }
    assert onnx.TensorProto.INT8 in tables.values()
    gathered = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    assert any(tables.get(name) == onnx.TensorProto.INT8 for name in gathered), (
        "rows are looked up as integers"
    )
    compared = edgekd("compare", out)
    assert "int4 weights, GPTQ" in compared.out
    assert "int4 weights" in (out / "report.md").read_text()
    checked = edgekd("check", out / entry["file"], "--json", "-").json()
    assert checked["coverage"]["integer_ops"] == 25 and checked["sparsity"]["layers_total"] == 25
    # Deployed weights come back from the run directory: only the deployment is done again.
    state = json.loads((out / "run.json").read_text())
    del state["stages"]["deploy/cpu"]
    (out / "run.json").write_text(json.dumps(state))
    before = entry["sha256"]
    assert edgekd("compress", recipe, "--out", out, "--resume").code == 0
    assert json.loads((out / "report.json").read_text())["deploy"][0]["sha256"] == before


def test_a_vision_transformer_in_eight_bits(edgekd, tmp_path):
    document = {
        "name": "vit", "teacher": "timm:test_vit@random", "student": "same",
        "data": {"path": "builtin:digits", "max_train": 64, "max_test": 64},
        "stages": [{"quantize": {"method": "weight-only", "bits": 8, "algorithm": "awq", "calibration_samples": 32}}],
        "profile": {"rounds": 1, "runs": 5, "warmup": 1}, "export": {"parity_samples": 64, "min_agreement": 0.9},
    }  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(document))
    done = edgekd("compress", path, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    (entry,) = json.loads((tmp_path / "out" / "report.json").read_text())["deploy"]
    assert entry["quantization"]["scheme"].startswith("int8 weights in blocks of 32")
    assert entry["quantization"]["mac_coverage"] > 0.8, "all but the patches' convolution"
    assert entry["size_bytes"] < 0.5 * entry["baseline"]["size_bytes"]


@pytest.mark.parametrize(
    ("device", "bits", "told"),
    [
        (
            "jetson-orin-nano",
            4,
            "device jetson-orin-nano: its runtime has no product with 4-bit weights in blocks",
        ),
        ("raspberry-pi-4b", 8, "ONNX Runtime 1.22 or newer"),
    ],
)
def test_a_runtime_without_the_product_is_refused_at_once(edgekd, news_recipe, tmp_path, device, bits, told):
    done = edgekd("compress", news_recipe(bits=bits), "--device", device, "--out", tmp_path / "out")
    assert done.code == 2 and told in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_convolutional_net_is_refused_at_once(edgekd, recipe, tmp_path):
    done = edgekd(
        "compress", recipe(stages=[{"quantize": {"method": "weight-only"}}]), "--out", tmp_path / "out"
    )
    assert done.code == 2 and done.err.count("\n") == 1
    assert "weight-only is not worth it for this model" in done.err
    assert not (tmp_path / "out").exists()


def test_gptq_and_a_mask_exclude_each_other(edgekd, news_recipe, tmp_path):
    path = news_recipe(algorithm="gptq")
    document = yaml.safe_load(path.read_text())
    document["stages"].insert(1, {"prune": {"epochs": 0, "objectives": {"ce": {}}}})
    path.write_text(yaml.safe_dump(document))
    done = edgekd("compress", path, "--out", tmp_path / "out")
    assert done.code == 2 and "gptq writes into the weights that prune holds at zero" in done.err
