"""The deploy folder of a text model: it answers as the model does, and says what it cut."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.artifact import sha256_file
from edgekd.device import load_device
from edgekd.export.bundle import write_bundle
from edgekd.export.write import export_float
from edgekd.preprocess_text import TextPreprocess, read_preprocess
from edgekd.profiles.session import open_session, run_batches

CLASSES = ("acq", "crude", "Körner")
TEXTS = ["the oil price rose", "wheat and corn exports fell in the gulf", "net profit"]


class Bag(nn.Module):
    """The mean of the embeddings of all tokens but padding, and a linear layer."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(tokens, 8), nn.Linear(8, 3)

    def forward(self, ids):
        kept = (ids != 0).unsqueeze(-1).float()
        return self.head((self.words(ids) * kept).sum(1) / kept.sum(1)) * 4


@pytest.fixture(scope="module")
def preprocess(tokenizer_json):
    return TextPreprocess.from_content(tokenizer_json, max_length=16, where="x")


def bundle(folder, preprocess, *, several=False, pairs=False, device="raspberry-pi-4b"):
    torch.manual_seed(0)
    model = Bag(preprocess.vocab_size).eval()
    model.head.bias.data += 2 * several  # more than one label is likely
    file = folder / "model.onnx"
    folder.mkdir(parents=True)
    export_float(model, torch.from_numpy(preprocess.example(2)), file, opset=17)
    files = write_bundle(
        folder, model_file=file, classes=CLASSES, preprocess=preprocess, device=load_device(device),
        facts={"scheme": "fp32", "pattern": None}, several=several, pairs=pairs,
    )  # fmt: skip
    return folder, model, files


@pytest.fixture(scope="module")
def single(preprocess, tmp_path_factory):
    return bundle(tmp_path_factory.mktemp("text") / "cpu", preprocess)


def run(folder, *arguments, stdin=None):
    """Another folder, another Python without site's user paths: nothing of edgekd is reached."""
    done = subprocess.run([sys.executable, "-I", str(folder / "run.py"), *arguments], capture_output=True, text=True,
                          check=False, input=stdin, cwd="/", encoding="utf-8")  # fmt: skip
    assert "Traceback" not in done.stderr
    return done


def expected(model, preprocess, texts):
    with torch.no_grad():
        return np.concatenate([model(torch.from_numpy(preprocess([text]))).numpy() for text in texts])


def test_the_folder_is_complete_and_true(single, preprocess):
    folder, _, files = single
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {path.name for path in folder.iterdir()} == {path.name for path in files}
    assert {"model.onnx", "tokenizer.json", "labels.json", "run.py", "README.md"} == set(manifest["files"])
    assert all(sha256_file(folder / name) == digest for name, digest in manifest["files"].items())
    assert manifest["model"]["input"] == "input_ids" and manifest["several_labels"] is False
    assert read_preprocess(manifest["preprocess"], folder, "x") == preprocess
    page = (folder / "README.md").read_text()
    assert "tokenizers" in page and "int64 (batch, sequence)" in page and "Pillow" not in page
    assert "over 16 tokens is cut" in page


def test_the_file_takes_any_batch_and_length(single, preprocess):
    folder, model, _ = single
    session = open_session(folder / "model.onnx")
    for ids in (preprocess(TEXTS), preprocess(TEXTS[:1]), preprocess.example(5)[:, :3]):
        with torch.no_grad():
            assert np.allclose(run_batches(session, ids), model(torch.from_numpy(ids)).numpy(), atol=1e-5)


def test_answers_are_the_models(single, preprocess):
    folder, model, _ = single
    logits = torch.from_numpy(expected(model, preprocess, TEXTS))
    done = run(folder, *TEXTS)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert done.returncode == 0 and [row[2] for row in rows] == TEXTS
    assert [row[0] for row in rows] == [CLASSES[k] for k in logits.argmax(1)]
    assert [row[1] for row in rows] == [f"{p:.4f}" for p in logits.softmax(1).max(1).values]
    found = json.loads(run(folder, *TEXTS, "--json", "--top", "3").stdout)
    assert [len(each["predictions"]) for each in found] == [3, 3, 3] and not any(
        each["cut"] for each in found
    )


def test_pairs_and_files(single, preprocess, tmp_path):
    folder, model, _ = bundle(tmp_path / "pairs", preprocess, pairs=True)
    pairs = [(TEXTS[0], TEXTS[2]), (TEXTS[2], TEXTS[0])]
    labels = [CLASSES[k] for k in expected(model, preprocess, pairs).argmax(1)]
    done = run(folder, *pairs[0], *pairs[1])
    assert run(folder, "--pair", *pairs[0], *pairs[1]).stdout == done.stdout
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == labels
    assert "the oil price rose | net profit" in done.stdout
    file = tmp_path / "a.txt"
    file.write_text("".join("\t".join(pair) + "\n\n" for pair in pairs), encoding="utf-8")
    assert run(folder, "--file", str(file)).stdout == done.stdout
    file.write_text("one text\n")
    wrong = run(folder, "--file", str(file))
    assert wrong.returncode == 2 and "line 1: not two texts" in wrong.stderr
    wrong = run(folder, "one")
    assert wrong.returncode == 2 and "takes pairs: an even number of texts, not 1" in wrong.stderr
    page = (folder / "README.md").read_text()
    assert '"the first text" "the second"' in page and "two texts a line, a tab between" in page
    folder = single[0]
    wrong = run(folder, "--pair", *pairs[0])
    assert wrong.returncode == 2 and "trained on single texts" in wrong.stderr
    assert "one text a line" in (folder / "README.md").read_text()
    assert run(folder, "--file", "-", stdin="\n".join(TEXTS)).stdout == run(folder, *TEXTS).stdout


def test_what_is_cut_or_empty_or_wrong_is_told(single, preprocess, tmp_path):
    folder, model, _ = single
    long = "wheat and oil prices fell " * 9
    done = run(folder, long)
    tokens = len(preprocess.model_copy(update={"max_length": 999}).encode([long])[0][0])
    assert done.returncode == 0 and f"cut from {tokens} to 16 tokens" in done.stderr
    assert done.stdout.split("\t")[0] == CLASSES[expected(model, preprocess, [long])[0].argmax()]
    empty = run(folder, "net profit", " ")
    assert empty.returncode == 2 and "a text is empty" in empty.stderr and empty.stdout.count("\n") == 1
    assert run(folder, "--file", str(tmp_path / "none.txt")).returncode == 2
    done = run(folder, b"caf\xe9", "net profit")
    assert (done.returncode, done.stderr) == (2, "not UTF-8 text: 'caf\\udce9'\n"), done.stderr
    assert done.stdout.endswith("net profit\n") and done.stdout.count("\n") == 1
    (tmp_path / "a.txt").write_bytes(b"caf\xe9\n")
    assert run(folder, "--file", str(tmp_path / "a.txt")).stderr == f"{tmp_path}/a.txt: not UTF-8 text\n"
    assert run(folder).returncode == 2


def test_several_labels_are_all_told(preprocess, tmp_path):
    folder, model, _ = bundle(tmp_path / "cpu", preprocess, several=True)
    logits = expected(model, preprocess, TEXTS)
    found = json.loads(run(folder, *TEXTS, "--json").stdout)
    counts = np.maximum(1, (logits > 0).sum(1))
    assert [len(each["predictions"]) for each in found] == counts.tolist() and counts.max() > 1
    best = found[0]["predictions"][0]["probability"]
    assert best == pytest.approx(1 / (1 + np.exp(-logits[0].max())), abs=1e-5)


def test_a_board_with_tensorrt_is_told_the_shape(preprocess, tmp_path):
    folder, _, _ = bundle(tmp_path / "jetson", preprocess, device="jetson-orin-nano")
    assert "--shapes=input_ids:1x16" in (folder / "README.md").read_text()


def test_the_script_needs_little_and_runs_on_python_3_8():
    source = resources.files("edgekd.export").joinpath("bundle_run_text.py").read_text()
    tree = ast.parse(source, feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names) == {
        "numpy",
        "onnxruntime",
        "tokenizers",
    }
    assert importlib.util.find_spec("edgekd.export.bundle_run_text")
