from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekd.data import open_data
from edgekd.errors import DataError
from edgekd.recipe import DataRecipe

Refused = Callable[..., object]
Digits = tuple[np.ndarray, np.ndarray]


def test_images_and_labels(tmp_path: Path, digits: Digits) -> None:
    pixels, labels = digits
    np.savez(tmp_path / "d.npz", images=pixels[:200, :, :, None], labels=labels[:200, None])
    data = open_data(DataRecipe(path="d.npz"), base=tmp_path)
    assert data.classes == tuple("0123456789")
    index = int(data.train.indices[5])
    assert (np.asarray(data.train.source.image(index)) == pixels[index]).all()
    assert data.train.labels[5] == labels[index]
    assert data.train.sample_id(5) == str(index)


def test_given_train_and_test(tmp_path: Path, digits: Digits) -> None:
    pixels, labels = digits
    colour = np.repeat(pixels[..., None], 3, axis=-1)
    np.savez_compressed(
        tmp_path / "d.npz",
        x_train=colour[:300], y_train=labels[:300], x_test=colour[300:400], y_test=labels[300:400],
        classes=np.array([f"digit {number}" for number in range(10)]),
    )  # fmt: skip
    data = open_data(DataRecipe(path="d.npz"), base=tmp_path)
    assert [len(split) for split in data.splits()] == [270, 30, 100]
    assert data.test.indices.tolist() == list(range(300, 400))
    assert (data.test.labels == labels[300:400]).all()
    assert data.classes[3] == "digit 3"
    assert data.test.source.image(300).mode == "RGB"


def test_text_labels(tmp_path: Path, digits: Digits) -> None:
    names = np.array(["odd" if label % 2 else "even" for label in digits[1]])
    np.savez(tmp_path / "d.npz", images=digits[0], labels=names)
    data = open_data(DataRecipe(path="d.npz"), base=tmp_path)
    assert data.classes == ("even", "odd")
    assert (data.train.labels == digits[1][data.train.indices] % 2).all()


def test_other_labels_are_another_fingerprint(tmp_path: Path, digits: Digits) -> None:
    """Also where no sample changes its split: the images and their number in each class are the same."""
    fingerprints = set()
    for shift in (0, 1):
        labels = (np.arange(200) + shift) % 2
        kept = {"x_train": digits[0][:200], "x_val": digits[0][200:240], "x_test": digits[0][240:280]}
        np.savez(tmp_path / "d.npz", **kept, y_train=labels, y_val=labels[:40], y_test=labels[:40])
        data = open_data(DataRecipe(path="d.npz"), base=tmp_path)
        assert [len(split) for split in data.splits()] == [200, 40, 40]
        fingerprints.add(data.fingerprint)
    assert len(fingerprints) == 2


def test_npy_is_label_free(tmp_path: Path, digits: Digits, refused: Refused) -> None:
    np.save(tmp_path / "d.npy", digits[0][:50])
    data = open_data(DataRecipe(path="d.npy", labels=False), base=tmp_path)
    assert sum(map(len, data.splits())) == 50
    assert data.classes == ()
    with refused(DataError, "holds no labels", ".npz"):
        open_data(DataRecipe(path="d.npy"), base=tmp_path)


def test_label_free_never_reads_labels(tmp_path: Path, digits: Digits) -> None:
    np.savez(tmp_path / "d.npz", images=digits[0][:50], labels=np.zeros(3))  # labels that could not be read
    data = open_data(DataRecipe(path="d.npz", labels=False), base=tmp_path)
    assert all((split.labels == -1).all() for split in data.splits())


def test_a_pickle_is_not_opened(tmp_path: Path, refused: Refused) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "opened",))  # type: ignore[return-value]

    np.savez(tmp_path / "d.npz", images=np.array([Trap(), Trap()], dtype=object), labels=np.arange(2))
    with refused(DataError, "d.npz", "pickle"):
        open_data(DataRecipe(path="d.npz"), base=tmp_path)
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_truncated_and_foreign_files(tmp_path: Path, digits: Digits, refused: Refused, suffix: str) -> None:
    path = tmp_path / f"d.{suffix}"
    if suffix == "npz":
        np.savez_compressed(path, images=digits[0], labels=digits[1])
    else:
        np.save(path, digits[0])
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[200:300] = bytes(100)
    contents = [whole[: len(whole) // 2], b"", b"PK\x03\x04junk", b"text"]
    if suffix == "npz":
        contents.append(bytes(damaged))
    for content in contents:
        path.write_bytes(content)
        with refused(DataError, str(path), "cannot be read"):
            open_data(DataRecipe(path=path.name, labels=suffix == "npz"), base=tmp_path)


@pytest.mark.parametrize(
    ("field", "value"), [("flags", 1), ("method", 99)], ids=["password", "unknown-compression"]
)
def test_an_archive_that_python_cannot_open(
    tmp_path: Path, digits: Digits, refused: Refused, field: str, value: int
) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, images=digits[0], labels=digits[1])
    content = bytearray(path.read_bytes())
    # Where a zip's two kinds of header hold it: flags, then the method of compression.
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = content.find(signature)
        while start >= 0:
            content[start + offset + (2 if field == "method" else 0)] = value
            start = content.find(signature, start + 4)
    path.write_bytes(content)
    with refused(DataError, str(path), "cannot be read"):
        open_data(DataRecipe(path=path.name), base=tmp_path)


@pytest.mark.parametrize(
    ("images", "word"),
    [
        (np.zeros((4, 8, 8), np.float32), "float32"),
        (np.zeros((4, 3, 8, 8), np.uint8), "(4, 3, 8, 8)"),
        (np.zeros((4, 64), np.uint8), "(4, 64)"),
        (np.zeros((0, 8, 8), np.uint8), "no images"),
    ],
)
def test_what_is_no_image_array(tmp_path: Path, refused: Refused, images: np.ndarray, word: str) -> None:
    np.savez(tmp_path / "d.npz", images=images, labels=np.zeros(len(images), int))
    with refused(DataError, "d.npz: images", word):
        open_data(DataRecipe(path="d.npz"), base=tmp_path)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.arange(3), ("(3,)", "(4,)")),
        (np.array([0, 1, -1, 1]), ("labels[2]", "-1")),
        (np.array([0, 1, 10**9, 1]), ("labels[2]", "1000000000")),
        (np.array([0, 0, 0, 0]), ("one class only",)),
        (np.array([0.0, 1.0, 0.5, 1.0]), ("float64",)),
        (np.array([0, 2, 0, 2]), ("no training image: '1'",)),
    ],
)
def test_labels_that_do_not_fit(
    tmp_path: Path, refused: Refused, labels: np.ndarray, words: tuple[str, ...]
) -> None:
    np.savez(tmp_path / "d.npz", images=np.zeros((4, 8, 8), np.uint8), labels=labels)
    with refused(DataError, *words):
        open_data(DataRecipe(path="d.npz"), base=tmp_path)


def test_missing_keys_and_shapes_that_differ(tmp_path: Path, digits: Digits, refused: Refused) -> None:
    np.savez(tmp_path / "d.npz", pictures=digits[0])
    with refused(DataError, "pictures", "x_train"):
        open_data(DataRecipe(path="d.npz"), base=tmp_path)
    np.savez(tmp_path / "d.npz", images=digits[0])
    with refused(DataError, "labels", "missing", "labels: false"):
        open_data(DataRecipe(path="d.npz"), base=tmp_path)
    np.savez(
        tmp_path / "d.npz", x_train=digits[0], y_train=digits[1], x_test=digits[0][:, 1:], y_test=digits[1]
    )
    with refused(DataError, "x_test", "another shape"):
        open_data(DataRecipe(path="d.npz"), base=tmp_path)


def test_the_same_image_in_train_and_test(tmp_path: Path, digits: Digits) -> None:
    pixels, labels = digits
    np.savez(
        tmp_path / "d.npz",
        x_train=pixels[:100],
        y_train=labels[:100],
        x_test=pixels[98:150],
        y_test=labels[98:150],
    )
    data = open_data(DataRecipe(path="d.npz"), base=tmp_path)
    told = [line for line in data.warnings if line.startswith("2 of 52 test images are also in ")]
    assert told or len([line for line in data.warnings if line.startswith("1 of 52 test images")]) == 2
