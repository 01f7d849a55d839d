"""Texts in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from edgekd.data.source import SampleError
from edgekd.errors import fault
from edgekd.preprocess_text import Text


class TextList:
    """Documents, or pairs of them.

    Attributes:
        ids: of each sample, stable between machines, such as ``reviews.csv:17``.
        targets: float32 ``(n, classes)`` of 0 and 1 where a text may have several labels, else None.
    """

    def __init__(
        self,
        name: str,
        texts: Sequence[Text],
        ids: Sequence[str],
        labels: np.ndarray,
        classes: tuple[str, ...],
        targets: np.ndarray | None = None,
    ) -> None:
        self.name, self.classes = name, classes
        self.texts, self.ids = texts, ids
        self.labels = np.asarray(labels, np.int64)
        self.targets = targets

    def __len__(self) -> int:
        return len(self.texts)

    def text(self, index: int) -> Text:
        return self.texts[index]

    def sample_id(self, index: int) -> str:
        return self.ids[index]

    def digest(self, index: int) -> bytes:
        text = self.texts[index]
        parts = (text,) if isinstance(text, str) else text
        if not all(part.strip() for part in parts):
            raise SampleError(fault(self.ids[index], "the text is empty"))
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()
