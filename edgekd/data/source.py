"""What data is to the rest of edgekd: a source of images or texts, three splits of it, where they come from.

A format (folder, table, array, built-in set) only says what is there, as :class:`Samples`;
``edgekd.data.open`` splits, checks and fingerprints it, the same way for every format. No torch here: an
ONNX file is evaluated on a board that has none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import numpy as np

from edgekd.errors import DataError
from edgekd.preprocess_text import Text

if TYPE_CHECKING:
    from PIL import Image

Progress = Callable[[str, int, int], None]
"""``progress(what, done, total)``, called from the thread that opened the data."""

SPLITS = ("train", "validation", "test")
UNLABELLED = -1


class SampleError(DataError):
    """One sample cannot be read; the message names it.

    A loader process hands an error over as its formatted traceback, of which only the last line is the
    message that a person can act on.
    """

    def __init__(self, message: str) -> None:
        last = message.strip().splitlines()[-1] if message.strip() else message
        super().__init__(last.removeprefix(f"{type(self).__module__}.{type(self).__qualname__}: "))


class SampleSource(Protocol):
    """Samples by index, with labels.

    Attributes:
        name: what reports call the data.
        classes: class names in label order; empty when nothing names them.
        labels: int64 ``(n,)``; -1 is unlabelled.
    """

    name: str
    classes: tuple[str, ...]
    labels: np.ndarray

    def __len__(self) -> int: ...

    def sample_id(self, index: int) -> str:
        """The path below the data's folder, or the position in the array: stable between machines."""

    def digest(self, index: int) -> bytes:
        """sha256 of the stored content, of a sample that is sound.

        Raises:
            SampleError: it cannot be read or decoded.
        """


class ImageSource(SampleSource, Protocol):
    """Images by index."""

    def image(self, index: int) -> Image.Image:
        """The decoded image.

        Raises:
            SampleError: it cannot be read or decoded.
        """


class TextSource(SampleSource, Protocol):
    """Texts, or pairs of them, by index.

    Attributes:
        targets: float32 ``(n, classes)`` of 0 and 1 where a sample may have several labels, else None. Then
            ``labels`` holds each sample's rarest label, by which splits are stratified.
    """

    targets: np.ndarray | None

    def text(self, index: int) -> Text: ...


def is_text(source: SampleSource) -> TypeGuard[TextSource]:
    """Whether the samples are texts."""
    return hasattr(source, "text")


def has_targets(source: SampleSource) -> bool:
    """Whether a sample may have several labels."""
    return is_text(source) and source.targets is not None


def noun(source: SampleSource) -> str:
    """What messages call a sample."""
    return "text" if is_text(source) else "image"


@dataclass(frozen=True)
class Samples:
    """What a format found, before it is split.

    Attributes:
        source: every sample.
        given: int64 source indices of the splits that the data itself names; ``train`` is always there and
            is everything where the data names none.
        warnings: one line each.
        provenance: facts for the run's record (JSON).
    """

    source: SampleSource
    given: dict[str, np.ndarray]
    warnings: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Split:
    """Some samples of a source, in a fixed order.

    Attributes:
        name: ``train``, ``validation`` or ``test``.
        indices: int64 ``(n,)``, positions in ``source``.
    """

    name: str
    source: SampleSource
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> np.ndarray:
        """int64 ``(n,)``; -1 is unlabelled."""
        return self.source.labels[self.indices]

    @property
    def targets(self) -> np.ndarray | None:
        """float32 ``(n, classes)`` where a sample may have several labels, else None."""
        source = self.source
        if not is_text(source) or source.targets is None:
            return None
        return source.targets[self.indices]

    @property
    def pairs(self) -> bool:
        """Whether a sample is two texts."""
        return (
            is_text(self.source)
            and len(self) > 0
            and not isinstance(self.source.text(int(self.indices[0])), str)
        )

    @property
    def labelled(self) -> bool:
        """Whether every sample's labels are known."""
        return bool((self.labels >= 0).all())

    def sample_id(self, position: int) -> str:
        """The id of the ``position``-th sample; for a batch's ``indices`` ask ``source.sample_id``."""
        return self.source.sample_id(int(self.indices[position]))


@dataclass(frozen=True)
class Dataset:
    """Opened data.

    Attributes:
        fingerprint: sha256 over classes and, per split, ids, labels and content.
        warnings: one line each, for the report.
        provenance: format, how each split came to be, skipped samples (JSON).
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    fingerprint: str
    warnings: list[str]
    provenance: dict[str, Any]

    def splits(self) -> tuple[Split, Split, Split]:
        """``(train, validation, test)``"""
        return (self.train, self.validation, self.test)
