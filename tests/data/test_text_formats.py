"""Texts from every format: what is read, how it is split, and each way in which a file is refused."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from edgekd.data.open import open_data
from edgekd.errors import DataError
from edgekd.recipe import DataRecipe


def opened(path, **settings):
    return open_data(DataRecipe(path=str(path), **settings), base=Path(), text=True)


def write(path, rows):
    """``rows`` of dicts in the format that the name says."""
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def save_to_disk(folder, rows, label):
    """What ``datasets.Dataset.save_to_disk`` of version 5.2 leaves, two shards; ``label`` is the feature."""
    folder.mkdir(parents=True)
    names = []
    for number, part in enumerate((rows[: len(rows) // 2], rows[len(rows) // 2 :])):
        names.append(f"data-{number:05d}-of-00002.arrow")
        table = pyarrow.Table.from_pylist(part)
        with pyarrow.ipc.new_stream(str(folder / names[-1]), table.schema) as stream:
            stream.write_table(table)
    features = {"text": {"dtype": "string", "_type": "Value"}, "label": label}
    (folder / "dataset_info.json").write_text(json.dumps({"features": features, "license": "cc0"}))
    state = {"_data_files": [{"filename": name} for name in names], "_split": None}
    (folder / "state.json").write_text(json.dumps(state))


@pytest.mark.parametrize("name", ["news.csv", "news.tsv", "news.jsonl", "news.parquet"])
def test_every_format_gives_the_same_data(news, tmp_path, name):
    rows = news(100)
    data = opened(write(tmp_path / name, rows), split_column="split")
    assert data.classes == ("acq", "crude", "earn", "grain")
    assert [len(split) for split in data.splits()] == [72, 8, 20]
    position = int(data.test.indices[1])
    kept = [row for row in rows if row["split"] == "train"] + [row for row in rows if row["split"] == "test"]
    assert data.test.source.text(position) == kept[position]["text"]
    assert data.classes[data.test.labels[1]] == kept[position]["label"]
    assert data.test.sample_id(1).startswith(f"{name}:")
    assert data.provenance["format"] == name.partition(".")[2]


def test_row_names_are_the_files_own_lines(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text,label\n"one\ntwo",a\nthree,b\n\nfour,a\nfive,b\nsix,a\nseven,b\n')
    source = opened(path, test_fraction=0.3).train.source
    assert [source.sample_id(i) for i in range(3)] == ["a.csv:2", "a.csv:4", "a.csv:6"]
    assert source.text(0) == "one\ntwo"


def test_splits_are_stratified_seeded_and_stable_when_rows_are_added(news, tmp_path):
    rows = news(200)
    data = opened(write(tmp_path / "a.csv", rows))
    assert [len(split) for split in data.splits()] == [162, 18, 20]
    assert set(np.bincount(data.test.labels)) == {5}
    again = opened(tmp_path / "a.csv")
    assert again.fingerprint == data.fingerprint and (again.test.indices == data.test.indices).all()
    assert (opened(tmp_path / "a.csv", split_seed=1).test.indices != data.test.indices).any()
    more = opened(write(tmp_path / "a.csv", [*rows, *news(8, seed=1)]))
    assert len(set(data.test.indices) & set(more.test.indices)) >= 18
    changed = [{**rows[0], "text": "another text"}, *rows[1:]]
    assert opened(write(tmp_path / "a.csv", changed)).fingerprint != data.fingerprint


def test_a_file_a_split_and_what_stands_in_two(news, tmp_path):
    rows = news(60)
    write(tmp_path / "train-00000-of-00002.csv", rows[:20])
    write(tmp_path / "train-00001-of-00002.csv", rows[20:40])
    write(tmp_path / "valid.jsonl", rows[40:52])
    write(tmp_path / "test.parquet", rows[52:] + rows[:2])
    data = opened(tmp_path)
    assert [len(split) for split in data.splits()] == [40, 12, 10]
    assert any("2 of 10 test texts are also in train" in line and "train-00000-of-00002.csv:2" in line
               for line in data.warnings)  # fmt: skip


def test_pairs(news, tmp_path):
    rows = [
        {"premise": row["text"], "text_pair": f"about {row['label']}", "label": row["label"]}
        for row in news(40)
    ]
    data = opened(write(tmp_path / "a.csv", rows), text_column="premise")
    assert data.train.source.text(3) == (rows[3]["premise"], rows[3]["text_pair"])
    swapped = opened(tmp_path / "a.csv", text_column="text_pair", pair_column="premise")
    assert swapped.train.source.text(3) == (rows[3]["text_pair"], rows[3]["premise"])
    with pytest.raises(DataError, match=r"no column for data\.pair_column; got 'hypothesis'"):
        opened(tmp_path / "a.csv", text_column="premise", pair_column="hypothesis")


def test_several_labels_by_list_or_separator(tmp_path, news):
    lists = [["oil", "trade"], ["oil"], [], ["grain"]] * 10
    texts = [row["text"] for row in news(40)]
    rows = [{"text": text, "label": labels} for text, labels in zip(texts, lists, strict=True)]
    data = opened(write(tmp_path / "a.jsonl", rows))
    assert data.classes == ("grain", "oil", "trade")
    assert data.train.source.targets[:4].tolist() == [[0, 1, 1], [0, 1, 0], [0, 0, 0], [1, 0, 0]]
    assert data.test.targets.shape == (len(data.test), 3) and data.test.labelled
    assert data.provenance["labels per text"] == 1.0
    flat = [{"text": text, "label": "|".join(labels)} for text, labels in zip(texts, lists, strict=True)]
    cells = opened(write(tmp_path / "a.csv", flat), label_separator="|")
    assert (cells.train.source.targets == data.train.source.targets).all()
    unsaid = opened(write(tmp_path / "b.csv", [row for row in flat if row["label"]]))
    assert unsaid.train.source.targets is None
    assert any(
        "'oil|trade' is read as one label" in line and "data.label_separator: '|'" in line
        for line in unsaid.warnings
    )
    assert not any("label_separator" in line for line in cells.warnings)
    other = [{**rows[0], "label": ["trade"]}, *rows[1:]]  # its rarest label stays
    assert opened(write(tmp_path / "a.jsonl", other)).fingerprint != data.fingerprint


@pytest.mark.parametrize("several", [False, True])
def test_a_folder_that_datasets_saved(news, tmp_path, several):
    names = ["grain", "earn", "crude", "acq"]  # its own order is kept
    label = {"names": names, "_type": "ClassLabel"}
    rows = [{"text": row["text"], "label": names.index(row["label"])} for row in news(48)]
    if several:
        label = {"feature": label, "_type": "List"}
        rows = [{**row, "label": [row["label"]]} for row in rows]
    save_to_disk(tmp_path / "set" / "train", rows[:40], label)
    save_to_disk(tmp_path / "set" / "test", rows[40:], label)
    (tmp_path / "set" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    data = opened(tmp_path / "set")
    assert data.classes == tuple(names) and [len(split) for split in data.splits()] == [36, 4, 8]
    assert data.provenance["licence"] == "cc0" and data.train.source.text(25) == rows[25]["text"]
    hot = data.train.source.targets if several else np.eye(4)[data.train.source.labels]
    assert hot[25].argmax() == (rows[25]["label"][0] if several else rows[25]["label"])
    alone = opened(tmp_path / "set" / "train")
    assert len(alone.test) == 4
    (tmp_path / "set" / "test" / "data-00000-of-00002.arrow").write_bytes(b"ARROW1 not")
    with pytest.raises(DataError, match="not an Arrow stream"):
        opened(tmp_path / "set")


def test_without_labels_no_label_is_read(news, tmp_path):
    rows = [{"text": row["text"], "label": None} for row in news(40)]
    data = opened(write(tmp_path / "a.jsonl", rows), labels=False)
    assert data.classes == () and (data.train.labels == -1).all() and not data.train.labelled


BAD = {
    "not JSON": ('{"text": "a", "label": "b"}\n{"text": \n', {}, "a.jsonl:2"),
    "not an object": ('{"text": "a", "label": "b"}\n[1]\n', {}, "a.jsonl:2"),
    "no column for data.text_column": (
        '{"txt": "a", "label": "b"}\n', {}, "did you mean 'txt'?; choose with --set data.text_column=COLUMN"
    ),
    "rows have no label": ('{"text": "a", "label": "b"}\n{"text": "c"}\n', {}, "a.jsonl:2"),
    "not a label": ('{"text": "a", "label": {"x": 1}}\n', {}, "a.jsonl:1"),
    "one label where other rows have a list": (
        '{"text": "a", "label": "b"}\n{"text": "c", "label": ["b"]}\n', {}, "a.jsonl:1"
    ),
    "no row is for training": (
        '\n{"text": "a", "label": "b", "split": "test"}\n', {"split_column": "split"}, "a.jsonl: split"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_broken_json_lines_name_the_line(tmp_path, refused, what):
    content, settings, spot = BAD[what]
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with refused(DataError, what, spot):
        opened(path, **settings)


def test_a_broken_csv_row_names_its_line(tmp_path, refused):
    path = tmp_path / "a.csv"
    path.write_text("text,label\none,a\ntwo,b,c\n")
    with refused(DataError, "a.csv:3", "a row of another length", "got 3"):
        opened(path)
    path.write_bytes(b"text,label\n\xff\xfe,a\n")
    with refused(DataError, "not UTF-8 text"):
        opened(path)


def test_empty_texts_are_counted_like_broken_images(news, tmp_path, refused):
    rows = news(60)
    rows[3] = {**rows[3], "text": "  "}
    path = write(tmp_path / "a.csv", rows)
    with refused(DataError, "1 broken text: a.csv:5: the text is empty", "at most 0"):
        opened(path)
    data = opened(path, max_broken=1)
    assert sum(map(len, data.splits())) == 59 and "skipped 1 broken texts" in data.warnings[0]


def test_a_label_that_only_the_test_split_has_is_refused(news, tmp_path, refused):
    rows = news(60)
    rows[5] = {**rows[5], "label": "crud"}
    with refused(DataError, "a.csv:7", "a label that no training row has", "'crud'", "acq, crude"):
        opened(write(tmp_path / "a.csv", rows), split_column="split")
    lists = [{**row, "label": [row["label"]]} for row in rows]
    with refused(DataError, "a.jsonl:6", "'crud'"):
        opened(write(tmp_path / "a.jsonl", lists), split_column="split")


def test_what_is_no_text_data_is_refused(tmp_path, refused, flat_folder):
    with refused(DataError, "holds no text data", "cat, dog"):
        opened(flat_folder)
    with refused(DataError, "a file of unknown kind", ".jsonl"):
        opened(write(tmp_path / "a.parquet", [{"text": "a"}]).rename(tmp_path / "a.npz"))
    with refused(DataError, "a set of images", "task: image-classification"):
        opened("builtin:digits")
    with refused(DataError, "a set of texts", "task: text-classification"):
        open_data(DataRecipe(path="builtin:reuters-r8"), base=Path())
    with refused(DataError, "no such built-in set", "did you mean 'builtin:reuters-r8'"):
        opened("builtin:reuters-8")


def test_opening_needs_no_torch(news, tmp_path):
    path = write(tmp_path / "a.csv", news(40))
    code = (
        "import sys; from pathlib import Path; from edgekd.data import open_data; from edgekd.recipe import DataRecipe;"
        f"open_data(DataRecipe(path={str(path)!r}), base=Path(), text=True); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
