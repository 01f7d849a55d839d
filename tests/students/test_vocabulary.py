"""Vocabularies trimmed to the task's text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from edgekd.errors import ModelError
from edgekd.models.directory import save_model_dir
from edgekd.models.resolve import resolve_model
from edgekd.preprocess_text import TextPreprocess
from edgekd.recipe import InputRecipe, Recipe
from edgekd.students.choose import choose_student, guide
from edgekd.students.vocabulary import in_vocabulary, trimmed_to

SEEN = ["the oil price rose", ("grain stocks fell", "the bank cut rates")]


@pytest.fixture(scope="module")
def teacher(text_folder):
    torch.manual_seed(1)
    return resolve_model(f"hf:{text_folder()}", classes=3, input=InputRecipe(max_length=32), base=Path(), where="x",
                         role="student")  # fmt: skip


def answers(model, texts):
    with torch.no_grad():
        return model.module(torch.from_numpy(model.preprocess(texts)))


def test_texts_of_kept_tokens_are_answered_as_before(teacher):
    own = trimmed_to(teacher.preprocess, SEEN, "x")
    trimmed = in_vocabulary(teacher, own, "x")
    assert own.vocab_size < teacher.preprocess.vocab_size - 10
    assert trimmed.module.encoder.get_input_embeddings().num_embeddings == own.vocab_size
    for texts in (SEEN, ["price cut", "the bank fell", ("oil rates", "grain rose")]):
        assert torch.allclose(answers(trimmed, texts), answers(teacher, texts), atol=1e-6)
    assert f"{own.vocab_size} of 200 tokens kept" in trimmed.notes[-1]
    assert "embeddings less" in trimmed.notes[-1]


def test_any_text_still_tokenizes(teacher):
    from tokenizers import Tokenizer

    own = trimmed_to(teacher.preprocess, SEEN, "x")
    whole, small = (Tokenizer.from_str(each.content) for each in (teacher.preprocess, own))
    new = "a tanker in tokyo exports corn"
    assert "[UNK]" not in whole.encode(new).tokens and "[UNK]" not in small.encode(new).tokens
    assert len(small.encode(new).ids) > len(whole.encode(new).ids)
    assert small.encode("oil", "price").type_ids == whole.encode("oil", "price").type_ids
    assert small.encode("日").tokens == whole.encode("日").tokens
    assert (own.pad_id, own.first_id, own.separator_id) == tuple(
        small.token_to_id(token) for token in ("[PAD]", "[CLS]", "[SEP]")
    )


def test_special_tokens_that_stand_elsewhere_keep_their_meaning(text_folder):
    """In many vocabularies they are not the first ones, and padding has a row of its own."""
    folder = text_folder()
    content = json.loads((folder / "tokenizer.json").read_text())
    last = 199
    swapped = {0: last, last: 0}
    vocabulary = content["model"]["vocab"]
    names = {number: token for token, number in vocabulary.items()}
    vocabulary["[PAD]"] = last
    if last in names:
        vocabulary[names[last]] = 0
    for entry in content["added_tokens"]:
        entry["id"] = swapped.get(entry["id"], entry["id"])
    (folder / "tokenizer.json").write_text(json.dumps(content))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": last}))
    model = resolve_model(f"hf:{folder}", classes=3, input=InputRecipe(max_length=32), base=Path(), where="x",
                          role="student")  # fmt: skip
    assert model.module.pad_id == last
    trimmed = in_vocabulary(model, trimmed_to(model.preprocess, SEEN, "x"), "x")
    assert trimmed.module.pad_id == trimmed.preprocess.vocab_size - 1 == trimmed.module.config["pad_token_id"]
    assert torch.allclose(answers(trimmed, SEEN), answers(model, SEEN), atol=1e-6)


def test_a_student_with_the_tasks_vocabulary_and_its_guide(teacher, tmp_path):
    stages = [{"stage": "distill", "objectives": {"ce": {}}}]
    recipe = Recipe.model_validate(
        {"name": "trial", "student": "same?layers=2&vocabulary=task", "teacher": "t", "data": {"path": "x"},
         "stages": stages}
    )  # fmt: skip
    student = choose_student(recipe, teacher, classes=3, base=Path(), texts=lambda: SEEN)
    assert len(student.module.encoder.encoder.layer) == 2
    assert student.preprocess.vocab_size < teacher.preprocess.vocab_size
    module = guide(teacher, student, "x")
    ids = torch.from_numpy(student.preprocess(SEEN))
    with torch.no_grad():
        assert torch.allclose(module(ids), answers(teacher, SEEN), atol=1e-6)
    assert guide(teacher, teacher, "x") is teacher.module
    save_model_dir(tmp_path / "s", student.module, spec=student.architecture, classes=["a", "b", "c"],
                   preprocess=student.preprocess, folded=False)  # fmt: skip
    again = resolve_model(str(tmp_path / "s"), classes=3, input=InputRecipe(), base=Path(), where="x")
    assert torch.equal(answers(again, SEEN), answers(student, SEEN))
    with pytest.raises(ModelError, match="vocabulary: the data are no texts"):
        choose_student(recipe, teacher, classes=3, base=Path())


def test_other_tokenizers_are_refused_with_the_reason(text_folder):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    own = Tokenizer(models.BPE(unk_token="<unk>"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    own.train_from_iterator(
        ["the oil price"], trainers.BpeTrainer(vocab_size=60, special_tokens=special, show_progress=False)
    )
    preprocess = TextPreprocess.from_content(own.to_str(), max_length=16, where="x")
    with pytest.raises(ModelError, match=r"a BPE tokenizer cannot be trimmed: .*; allowed: WordPiece"):
        trimmed_to(preprocess, SEEN, "x")
