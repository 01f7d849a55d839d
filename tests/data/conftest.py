from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's cache."""
    cache = tmp_path / "user-cache"
    monkeypatch.setenv("EDGEKD_CACHE", str(cache))
    return cache


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """uint8 ``(1797, 8, 8)`` and labels."""
    stored = load_digits()
    return (stored.images * 15.9).astype(np.uint8), stored.target


@pytest.fixture
def write_images(digits: tuple[np.ndarray, np.ndarray]) -> Callable[..., None]:
    """``write_images(folder, digit, first, last)`` stores real digits, as PNG and JPEG by turns."""

    def write(folder: Path, digit: int, first: int, last: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        pixels, labels = digits
        for number in range(first, last):
            image = Image.fromarray(pixels[np.flatnonzero(labels == digit)[number]]).resize((24, 20))
            image.save(folder / f"{number:03d}.{'png' if number % 2 else 'jpg'}")

    return write


@pytest.fixture
def flat_folder(tmp_path: Path, write_images: Callable[..., None]) -> Path:
    """``cat`` and ``dog``, 20 images each."""
    root = tmp_path / "photos"
    write_images(root / "cat", 3, 0, 20)
    write_images(root / "dog", 7, 0, 20)
    return root


@pytest.fixture
def refused() -> Callable[..., AbstractContextManager[None]]:
    """``with refused(Kind, *words)``: that error, on one line, with every word in it."""

    @contextmanager
    def check(kind: type[Exception], *words: str) -> Iterator[None]:
        with pytest.raises(kind) as caught:
            yield
        message = str(caught.value)
        assert "\n" not in message
        assert len(message) < 600
        for word in words:
            assert word in message, message

    return check
