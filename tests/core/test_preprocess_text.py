"""The one preprocessing of texts: ids, cutting, pairs, and tokenizers that do not fit."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

from edgekd.errors import ModelError
from edgekd.preprocess import Preprocess
from edgekd.preprocess_text import TextPreprocess, read_preprocess


def make(content, length=12):
    return TextPreprocess.from_content(content, max_length=length, where="x")


def refusal(call):
    with pytest.raises(ModelError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_texts_and_pairs_become_padded_rows(tokenizer_json):
    own = make(tokenizer_json)
    ids = own(["the oil price", ("the dollar", "oil")])
    assert ids.dtype == np.int64 and ids.shape[0] == 2
    first = ids[0][ids[0] != own.pad_id]
    assert first[0] == own.first_id and first[-1] == own.separator_id and len(first) == 5
    pair = ids[1][ids[1] != own.pad_id].tolist()
    assert pair.count(own.separator_id) == 2 and pair[0] == own.first_id and pair[-1] == own.separator_id


def test_long_texts_are_cut_and_counted_but_keep_their_ends(tokenizer_json):
    own = make(tokenizer_json, 8)
    rows, long = own.encode(
        ["oil", "the oil price rose in the gulf of the port", ("oil " * 9, "dollar " * 9)]
    )
    assert long == [1, 2] and [len(row) for row in rows] == [3, 8, 8]
    assert all(row[0] == own.first_id and row[-1] == own.separator_id for row in rows)
    assert list(rows[2]).count(own.separator_id) == 2
    assert (
        rows[1].tolist()[:7]
        == make(tokenizer_json, 40).encode(["the oil price rose in the gulf of the port"])[0][0].tolist()[:7]
    )


def test_its_own_cutting_and_padding_are_dropped_and_a_missing_frame_is_added(tokenizer_json):
    settings = json.loads(tokenizer_json)
    settings["truncation"] = {"max_length": 4, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}
    settings["padding"] = {"strategy": {"Fixed": 30}, "direction": "Right", "pad_to_multiple_of": None,
                           "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}  # fmt: skip
    frame = settings.pop("post_processor")
    assert make(json.dumps({**settings, "post_processor": None}))(["the oil price rose"]).tolist() == (
        make(json.dumps({**settings, "post_processor": frame}))(["the oil price rose"]).tolist()
    )
    assert make(json.dumps({**settings, "post_processor": frame}), 30)(["the oil price rose"]).shape == (1, 6)


def test_what_is_no_tokenizer_or_lacks_a_token_is_refused(tokenizer_json, tmp_path):
    assert "not a tokenizer.json" in refusal(lambda: make("{}"))
    assert "not a tokenizer.json" in refusal(lambda: make("a: b"))
    without = json.loads(tokenizer_json)
    without["added_tokens"] = [each for each in without["added_tokens"] if each["content"] != "[PAD]"]
    del without["model"]["vocab"]["[PAD]"]
    assert "no pad token" in refusal(lambda: make(json.dumps(without)))
    missing = tmp_path / "tokenizer.json"
    assert "cannot be read" in refusal(lambda: TextPreprocess.from_file(missing, max_length=8, where="x"))


def test_tokenizer_and_model_must_fit(tokenizer_json):
    own = make(tokenizer_json, 64)
    own.require_rows(own.vocab_size, 64, "x")
    assert "does not fit the model" in refusal(lambda: own.require_rows(own.vocab_size - 1, None, "x"))
    assert "longer than the model takes" in refusal(lambda: own.require_rows(own.vocab_size, 63, "x"))


def test_settings_find_their_tokenizer_again_and_no_other(tokenizer_json, tmp_path):
    own = make(tokenizer_json)
    stored = json.loads(own.model_dump_json())
    assert "missing" not in stored and "vocab" not in stored
    for name, content in own.files().items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    again = read_preprocess(stored, tmp_path, "x")
    assert again == own and again(["the oil"]).tolist() == own(["the oil"]).tolist()
    assert pickle.loads(pickle.dumps(own))(["the oil"]).tolist() == own(["the oil"]).tolist()
    (tmp_path / "tokenizer.json").write_text(own.content.replace("oil", "oi1"), encoding="utf-8")
    assert "another tokenizer" in refusal(lambda: read_preprocess(stored, tmp_path, "x"))
    image = Preprocess(height=8, width=8)
    assert read_preprocess(image.model_dump(mode="json"), tmp_path, "x") == image
    assert "not a preprocessing" in refusal(lambda: read_preprocess({"height": 3}, tmp_path, "x"))


def test_examples_are_valid_and_unpadded(tokenizer_json):
    own = make(tokenizer_json, 200)
    ids = own.example(3)
    assert ids.shape == own.example_shape(3) == (3, 128) and ids.dtype == np.int64
    assert (ids != own.pad_id).all() and ids.max() < own.vocab_size and len(np.unique(ids)) > 50
    assert (ids[:, 0] == own.first_id).all() and (ids == own.separator_id).sum() == 3
    assert make(tokenizer_json, 9).example_shape(1) == (1, 9)
    assert Preprocess(height=4, width=6, channels=1).example(2).shape == (2, 1, 4, 6)


def test_same_ids_whatever_the_settings_around_them(tokenizer_json):
    own, settings = make(tokenizer_json), json.loads(tokenizer_json)
    settings["normalizer"]["lowercase"] = False
    assert own.same_ids(make(json.dumps(settings)))
    assert not own.same_ids(make(tokenizer_json.replace('"oil"', '"oyl"')))


def test_no_torch_is_imported():
    code = (
        "import edgekd.preprocess_text, sys; sys.exit('torch' in sys.modules or 'tokenizers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
