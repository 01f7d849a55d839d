"""The honest baseline of every text result: TF-IDF of words and a linear support vector machine.

T. Joachims, "Text Categorization with Support Vector Machines: Learning with Many Relevant Features",
ECML 1998. Whether pairs of words help is chosen on the validation texts; then it learns from them too.
"""

from __future__ import annotations

import logging
import time
import warnings
from typing import Any

import numpy as np

from edgekd.data.source import Dataset, Split, is_text
from edgekd.errors import DataError, MissingDependencyError, fault
from edgekd.tasks import TEXT

_log = logging.getLogger(__name__)

NAME = "TF-IDF + linear SVM"
_GRAMS = (1, 2)


def text_baseline(data: Dataset) -> dict[str, Any]:
    """Fit it on the training and validation texts, judge it on the test texts.

    Returns:
        ``name``, ``metrics``, ``features``, ``words`` (2 where pairs of words helped) and ``seconds``.

    Raises:
        DataError: the data are images, or unlabelled.
        MissingDependencyError: scikit-learn is not installed.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.multiclass import OneVsRestClassifier
        from sklearn.svm import LinearSVC
    except ImportError:
        fix = "pip install scikit-learn"
        raise MissingDependencyError(fault(NAME, "scikit-learn is not installed", fix=fix)) from None
    if not all(split.labelled for split in data.splits()):
        raise DataError(fault(data.name, "the baseline needs labels"))
    begun = time.perf_counter()

    def fitted(splits: list[Split], longest: int) -> tuple[Any, Any]:
        words = TfidfVectorizer(ngram_range=(1, longest))
        features = words.fit_transform([text for split in splits for text in _texts(split)])
        truth = np.concatenate([_truth(split) for split in splits])
        machine = LinearSVC(random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a label that every text or none has
            fit = (OneVsRestClassifier(machine) if truth.ndim == 2 else machine).fit(features, truth)
        return words, fit

    _log.info(f"{NAME}: fitted to {len(data.train) + len(data.validation)} texts, to compare with")
    judged = TEXT.criterion(several=data.test.targets is not None)
    scores = {n: _judge(*fitted([data.train], n), data.validation)[judged] or 0.0 for n in _GRAMS}
    longest = max(_GRAMS, key=lambda n: scores[n])
    words, machine = fitted([data.train, data.validation], longest)
    return {"name": NAME, "metrics": _judge(words, machine, data.test), "features": len(words.vocabulary_),
            "words": longest, "seconds": time.perf_counter() - begun}  # fmt: skip


def _judge(words: Any, machine: Any, split: Split) -> dict[str, float | None]:
    """A margin is no probability, so neither calibration nor likelihood is told."""
    margins = machine.decision_function(words.transform(_texts(split)))
    truth = _truth(split)
    if margins.ndim == 1:  # two classes: the margin of the second
        margins = np.stack([-margins, margins], axis=1)
    logits = margins
    if truth.ndim == 1:  # a class that no known text has is never answered
        logits = np.full((len(split), len(split.source.classes)), margins.min() - 1.0)
        logits[:, machine.classes_] = margins
    return {**TEXT.metrics(logits, truth, None), "ece": None, "nll": None}


def _texts(split: Split) -> list[str]:
    source = split.source
    if not is_text(source):
        raise DataError(fault(source.name, "the baseline reads texts, the data are images"))
    texts = [source.text(index) for index in split.indices.tolist()]
    return [text if isinstance(text, str) else "\n".join(text) for text in texts]


def _truth(split: Split) -> np.ndarray:
    return split.labels if split.targets is None else split.targets
