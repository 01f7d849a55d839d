"""``torch:FILE.py:FACTORY`` for texts: the user's own module beside the user's own tokenizer."""

from __future__ import annotations

import pytest
import torch

from edgekd.errors import ModelError
from edgekd.models.cost import measure_cost
from edgekd.models.directory import save_model_dir
from edgekd.preprocess_text import TextPreprocess

SOURCE = """
from torch import nn

PREPROCESS = {"tokenizer": "own/tokenizer.json", "max_length": 20}


class Bag(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.words, self.head = nn.Embedding(200, 8), nn.Linear(8, num_classes)

    def forward(self, ids):
        return self.head(self.words(ids).mean(1))


def bag(num_classes=4):
    return Bag(num_classes)


def short(num_classes=4):
    module = Bag(num_classes)
    module.words = nn.Embedding(20, 8)
    return module
"""


@pytest.fixture(autouse=True)
def file(tmp_path, tokenizer_json):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    (tmp_path / "bag.py").write_text(SOURCE)
    return tmp_path / "bag.py"


def test_it_reads_text_and_comes_back_from_disk(resolve, tmp_path):
    model = resolve("torch:bag.py:bag", classes=3)
    assert isinstance(model.preprocess, TextPreprocess) and model.preprocess.max_length == 20
    assert resolve("torch:bag.py:bag", classes=3, max_length=9).preprocess.max_length == 9
    ids = torch.from_numpy(model.preprocess(["the oil price", "wheat"]))
    assert model.module(ids).shape == (2, 3)
    save_model_dir(tmp_path / "saved", model.module, spec=model.architecture, classes=["a", "b", "c"],
                   preprocess=model.preprocess, folded=False)  # fmt: skip
    assert {path.name for path in (tmp_path / "saved").iterdir()} >= {"tokenizer.json", "bag.py"}
    again = resolve("saved", classes=3)
    assert again.preprocess == model.preprocess and torch.equal(again.module(ids), model.module(ids))
    assert resolve("saved", classes=3, max_length=7).preprocess.max_length == 7
    assert measure_cost(model.module, torch.from_numpy(model.preprocess.example(1))).macs == 8 * 3


def test_what_does_not_fit_is_refused(refused, file):
    assert "refuses an input of 20 tokens" in refused("torch:bag.py:short", classes=3, error=ModelError)
    for old, new, words in (
        ('"max_length": 20', '"longest": 20', "unknown field"),
        ('"max_length": 20', '"max_length": 2', "not a length"),
        ("own/tokenizer.json", "none.json", "cannot be read"),
    ):
        file.write_text(SOURCE.replace(old, new))
        assert words in refused("torch:bag.py:bag", classes=3, error=ModelError)
