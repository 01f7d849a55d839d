from __future__ import annotations

import gzip
import hashlib
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.data import fashion_mnist, fashion_mnist_fetch, open_data
from edgekd.data.idx import parse_idx, read_idx
from edgekd.errors import DataError, MissingDependencyError, OutputError
from edgekd.recipe import DataRecipe

Refused = Callable[..., object]
FASHION = DataRecipe(path="builtin:fashion-mnist")


def _idx(array: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def _tiny_fashion(folder: Path) -> dict[str, str]:
    """40 + 20 images in the four files; returns the sha256 of each file's content."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    sums = {}
    for prefix, count in {"train": 40, "t10k": 20}.items():
        parts = {
            "images-idx3": random.integers(0, 256, (count, 28, 28)),
            "labels-idx1": np.arange(count) % 10,
        }
        for kind, array in parts.items():
            name = f"{prefix}-{kind}-ubyte.gz"
            (folder / name).write_bytes(gzip.compress(_idx(array)))
            sums[name] = hashlib.sha256(_idx(array)).hexdigest()
    return sums


@pytest.fixture(autouse=True)
def no_debian_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "not-installed")


def test_idx_by_hand() -> None:
    data = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6])
    assert parse_idx(data, 2, "x").tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5]), "5 bytes"),
        (bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6, 7]), "7 bytes"),
        (bytes([0, 0, 9, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6]), "00000902"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 6, 1, 2, 3, 4, 5, 6]), "2 dimensions"),
        (b"", "header"),
    ],
)
def test_idx_that_is_wrong(data: bytes, word: str, refused: Refused) -> None:
    with refused(DataError, "file.gz", word):
        parse_idx(data, 2, "file.gz")


def test_idx_that_is_truncated_or_damaged(tmp_path: Path, refused: Refused) -> None:
    whole = gzip.compress(_idx(np.arange(5000) % 7))
    flipped = bytearray(whole)
    flipped[-6] ^= 1  # the checksum
    for content in (whole[:-9], bytes(flipped), b"no gzip", b""):
        (tmp_path / "a.gz").write_bytes(content)
        with refused(DataError, "a.gz"):
            read_idx(tmp_path / "a.gz", 1)


def test_fashion_mnist_from_the_cache(own_cache: Path) -> None:
    _tiny_fashion(own_cache / "fashion-mnist")
    data = open_data(FASHION, base=Path())
    assert data.name == "fashion-mnist"
    assert data.classes[9] == "Ankle boot"
    assert [len(split) for split in data.splits()] == [36, 4, 20]
    assert data.test.indices.tolist() == list(range(40, 60))
    assert (data.test.labels == np.arange(20) % 10).all()
    assert data.provenance["licence"] == "MIT"


def test_fashion_mnist_from_an_installed_package(tmp_path: Path) -> None:
    _tiny_fashion(tmp_path / "not-installed")
    assert len(open_data(FASHION, base=Path()).test) == 20


def test_fashion_mnist_without_labels(own_cache: Path) -> None:
    _tiny_fashion(own_cache / "fashion-mnist")
    (own_cache / "fashion-mnist" / "train-labels-idx1-ubyte.gz").write_bytes(b"never read")
    data = open_data(DataRecipe(path="builtin:fashion-mnist", labels=False), base=Path())
    assert (data.train.labels == -1).all()
    assert len(data.classes) == 10


def test_fashion_mnist_with_labels_of_another_length(own_cache: Path, refused: Refused) -> None:
    _tiny_fashion(own_cache / "fashion-mnist")
    (own_cache / "fashion-mnist" / "t10k-labels-idx1-ubyte.gz").write_bytes(
        gzip.compress(_idx(np.arange(19)))
    )
    with refused(DataError, "labels do not fit", "delete the folder"):
        open_data(FASHION, base=Path())


def _programs(folder: Path, monkeypatch: pytest.MonkeyPatch, apt: str) -> None:
    """Stand-ins for apt-get and dpkg on the PATH; ``apt`` is the body of the first, in Python."""
    folder.mkdir()
    unpack = "import shutil, sys; shutil.copytree(sys.argv[2], sys.argv[3] + '/usr/share/datasets')"
    for name, body in {"apt-get": apt, "dpkg": unpack}.items():
        (folder / name).write_text(f"#!{sys.executable}\n{body}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_fetched_through_apt_with_private_lists(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a fresh container: the first download finds no package lists, the second uses its own."""
    sums = _tiny_fashion(tmp_path / "package")
    monkeypatch.setattr(fashion_mnist_fetch, "CONTENT_SHA256", sums)
    apt = f"""
import os, shutil, sys
lists = [part.split("=")[1] for part in sys.argv if part.startswith("Dir::State::Lists=")]
if lists and not os.path.isdir(lists[0] + "/partial"):
    sys.exit("E: List directory is missing")
if sys.argv[-1] == "update":
    open(lists[0] + "/there", "w")
elif not lists or not os.path.exists(lists[0] + "/there"):
    sys.exit("E: Unable to locate package")
else:
    shutil.copytree({str(tmp_path / "package")!r}, "dataset-fashion-mnist_1_all.deb")
"""
    _programs(tmp_path / "bin", monkeypatch, apt)
    assert len(open_data(FASHION, base=Path()).train) == 36
    assert sorted(path.name for path in own_cache.iterdir()) == ["fashion-mnist"]  # nothing left behind
    monkeypatch.setenv("PATH", "")
    assert len(open_data(FASHION, base=Path()).train) == 36  # from the cache now


def test_what_arrives_is_checked_and_every_reason_is_told(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    _tiny_fashion(tmp_path / "package")  # not what the checksums say
    copy = f"import shutil; shutil.copytree({str(tmp_path / 'package')!r}, 'dataset-fashion-mnist_1_all.deb')"
    _programs(tmp_path / "bin", monkeypatch, copy)
    monkeypatch.setattr(fashion_mnist_fetch, "URL", "https://localhost:9/")
    with refused(DataError, "sha256", "download:", str(own_cache / "fashion-mnist"), "t10k-labels"):
        open_data(FASHION, base=Path())
    assert list((own_cache / "fashion-mnist").iterdir()) == []


def test_no_apt_and_no_network(monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(fashion_mnist_fetch, "URL", "https://localhost:9/")
    with refused(DataError, "apt-get: not on this system", "download:"):
        open_data(FASHION, base=Path())


def test_a_cache_that_cannot_be_written(own_cache: Path, refused: Refused) -> None:
    own_cache.write_text("a file where the folder should be")
    with refused(OutputError, "cannot be written"):
        open_data(FASHION, base=Path())


def test_the_real_checksums_are_of_the_files_that_are_read() -> None:
    assert tuple(fashion_mnist_fetch.CONTENT_SHA256) == fashion_mnist.FILES


def test_digits() -> None:
    data = open_data(DataRecipe(path="builtin:digits"), base=Path())
    assert [len(split) for split in data.splits()] == [1455, 162, 180]
    assert data.classes == tuple("0123456789")
    pixels = np.asarray(data.train.source.image(0))
    assert (pixels.dtype, pixels.shape, pixels.max()) == (np.uint8, (8, 8), 239)  # 15 of 16
    assert data.train.source.labels[:4].tolist() == [0, 1, 2, 3]


def test_digits_without_labels() -> None:
    data = open_data(DataRecipe(path="builtin:digits", labels=False), base=Path())
    assert (data.train.source.labels == -1).all()


def test_elpv_prints_its_licence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: tuple) -> None:
    """A package of the same form: the real one is 91 MB and not free for all uses."""
    package = tmp_path / "site" / "elpv_dataset"
    (package / "data" / "images").mkdir(parents=True)
    (package / "__init__.py").touch()
    rows = []
    for number in range(40):
        Image.fromarray(digits[0][number]).save(package / "data" / "images" / f"cell{number:04d}.png")
        rows.append(f"images/cell{number:04d}.png  {(0.0, 1 / 3, 2 / 3, 1.0)[number % 4]}   mono")
    (package / "data" / "labels.csv").write_text("\n".join(rows))
    monkeypatch.syspath_prepend(tmp_path / "site")
    data = open_data(DataRecipe(path="builtin:elpv"), base=Path())
    assert data.classes == ("functional", "defective")
    assert data.train.source.labels[:4].tolist() == [0, 0, 1, 1]
    assert "CC-BY-NC-SA" in data.warnings[0]
    assert data.provenance["licence"] == "CC-BY-NC-SA-4.0"


@pytest.mark.parametrize(("name", "module", "word"), [
    ("elpv", "elpv_dataset", "pip install 'edgekd[elpv]'"),
    ("digits", "sklearn.datasets", "pip install scikit-learn"),
])  # fmt: skip
def test_a_set_whose_package_is_missing(
    name: str, module: str, word: str, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with refused(MissingDependencyError, f"builtin:{name}", word):
        open_data(DataRecipe(path=f"builtin:{name}"), base=Path())


def test_an_unknown_set_names_the_nearest(refused: Refused) -> None:
    with refused(DataError, "builtin:fashion_mnist", "did you mean 'builtin:fashion-mnist'?"):
        open_data(DataRecipe(path="builtin:fashion_mnist"), base=Path())
