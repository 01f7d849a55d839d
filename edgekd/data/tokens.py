"""Texts as token ids, tokenized once: the loaders of every epoch and every split read the same arrays."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np

from edgekd.data.source import Dataset, SampleSource, TextSource, is_text
from edgekd.errors import DataError, fault
from edgekd.preprocess_text import Text, TextPreprocess

_BLOCK = 2048  # texts handed to the tokenizer's threads at once
_POOL = 32  # batches among which texts are sorted by length


class Tokens:
    """Token ids of a source's samples under one preprocessing.

    Attributes:
        rows: int32 by source index; None until asked for.
        cut: bool ``(n,)``: the text was longer than the model takes.
    """

    def __init__(self, source: TextSource, preprocess: TextPreprocess) -> None:
        self._texts, self._preprocess = source, preprocess
        self.rows: list[np.ndarray | None] = [None] * len(source)
        self.cut = np.zeros(len(source), bool)

    def of(self, indices: np.ndarray) -> list[np.ndarray]:
        """Ids of the samples at ``indices``, int32 each, without padding."""
        missing = [index for index in indices.tolist() if self.rows[index] is None]
        for start in range(0, len(missing), _BLOCK):
            block = missing[start : start + _BLOCK]
            texts: list[Text] = [self._texts.text(index) for index in block]
            rows, long = self._preprocess.encode(texts)
            for index, row in zip(block, rows, strict=True):
                self.rows[index] = row
            self.cut[[block[position] for position in long]] = True
        return [row for index in indices.tolist() if (row := self.rows[index]) is not None]

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Tokens of each sample, int64 ``(n,)``."""
        return np.array([len(row) for row in self.of(indices)], np.int64)


_KNOWN: WeakKeyDictionary[TextSource, dict[tuple[str, int], Tokens]] = WeakKeyDictionary()


def tokens_of(source: SampleSource, preprocess: TextPreprocess) -> Tokens:
    """The source's tokens, shared by all who ask.

    Raises:
        DataError: the source holds images.
    """
    if not is_text(source):
        fix = "set task: text-classification, or give a model that takes images"
        raise DataError(fault(source.name, "the data are images, the model takes text", fix=fix))
    known = _KNOWN.setdefault(source, {})
    return known.setdefault((preprocess.tokenizer_sha256, preprocess.max_length), Tokens(source, preprocess))


def cut_warnings(data: Dataset, preprocess: TextPreprocess) -> list[str]:
    """One line for each split that holds texts longer than the model takes, with their count."""
    warnings = []
    for split in data.splits():
        tokens = tokens_of(split.source, preprocess)
        tokens.of(split.indices)
        count = int(tokens.cut[split.indices].sum())
        if count:
            warnings.append(
                f"{count} of {len(split)} {split.name} texts are longer than {preprocess.max_length} tokens "
                "and are cut there"
            )
    return warnings


def bucketed(lengths: np.ndarray, shuffled: np.ndarray, batch_size: int) -> np.ndarray:
    """``shuffled`` positions rearranged so that each batch holds texts of like length.

    Pools of 32 batches are sorted by length, then the batches are dealt in the order of their first position
    in ``shuffled``; the last, smaller batch stays last. A function of its arguments alone.

    Args:
        lengths: int64 ``(n,)`` by position.
        shuffled: a permutation of ``range(n)``.
    """
    whole = len(shuffled) - len(shuffled) % batch_size
    place = np.empty(len(shuffled), np.int64)
    place[shuffled] = np.arange(len(shuffled))
    batches: list[np.ndarray] = []
    for start in range(0, whole, _POOL * batch_size):
        pool = shuffled[start : min(start + _POOL * batch_size, whole)]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[at : at + batch_size] for at in range(0, len(pool), batch_size)]
    batches.sort(key=lambda batch: int(place[batch].min()))
    return np.concatenate([*batches, shuffled[whole:]])
