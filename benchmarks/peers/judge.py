"""What a written file is worth: its answers beside fp32's, its kernels, its zeros."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.peers.bounded import one_line, run_bounded
from benchmarks.peers.kernels import count_kernels
from benchmarks.peers.launch import clean_environ
from benchmarks.peers.row import Points, Row
from benchmarks.peers.subject import Subject
from edgekd.errors import EdgeKDError, ModelFileError, fault
from edgekd.export.parity import parity
from edgekd.export.sparsity import check_sparsity
from edgekd.profiles import open_session, run_batches

_ANSWER_SECONDS = 600.0
_RIGHT = "right.npy"


def judge(
    row: Row, file: Path, subject: Subject, *, pattern: str | None, worker: Sequence[str] | None
) -> Row:
    """``row`` with what the file's answers and graph say; "wrong file" where ONNX Runtime refuses it."""
    try:
        if worker is not None:
            foreign = _foreign_logits(file, subject, worker)
            return row.model_copy(
                update={**_answers(foreign, subject.expected), **_right(foreign, subject, file)}
            )
        samples = np.load(subject.comparison)
        written = run_batches(open_session(file), samples, batch=1)
        facts = {
            **_answers(written, subject.expected), **_right(written, subject, file), **_kernels(file),
            **_zeros(file, pattern),
        }  # fmt: skip
    except EdgeKDError as error:
        return row.failed("wrong file", one_line(str(error)))
    except Exception as error:  # whatever a foreign file makes our readers do, the other rows must go on
        return row.failed("wrong file", one_line(f"{type(error).__name__}: {error}"))
    return row.model_copy(update=facts)


def sqnr_db(expected: np.ndarray, written: np.ndarray) -> float | None:
    """Signal: what the logits ``(samples, classes)`` say about a sample, that is without their mean over samples.

    None when the two are equal.
    """
    noise = float(((expected - written) ** 2).mean(dtype=np.float64))
    signal = float((expected - expected.mean(0)).var(dtype=np.float64))
    return 10 * float(np.log10(signal / noise)) if noise and signal else None


def _answers(written: np.ndarray, expected: np.ndarray) -> dict[str, object]:
    found = parity(expected, written, reference="fp32 file")
    return {
        "agreement": found.agreement, "max_abs_diff": found.max_abs_diff, "samples": found.samples,
        "sqnr_db": sqnr_db(expected, written),
    }  # fmt: skip


def _right(written: np.ndarray, subject: Subject, file: Path) -> dict[str, object]:
    """Which samples are answered rightly, without labels as fp32 does, is left beside the file, for
    :func:`beside_edgekd`."""
    own = subject.expected.argmax(1)
    right = written.argmax(1) == (own if subject.labels is None else subject.labels)
    np.save(file.with_name(_RIGHT), right)
    if subject.labels is None:
        return {}
    return {"accuracy": float(right.mean()), "loss": Points.between(own == subject.labels, right)}


def beside_edgekd(rows: Sequence[Row], subject: Subject) -> list[Row]:
    """``rows`` of one model with what edgekd's file answers rightly more often than each."""
    judged = {row.peer: subject.folder / row.peer / _RIGHT for row in rows if row.agreement is not None}
    if "edgekd" not in judged:
        return list(rows)
    own = np.load(judged["edgekd"])
    gains = {peer: Points.between(own, np.load(path)) for peer, path in judged.items() if peer != "edgekd"}
    return [row.model_copy(update={"edgekd_gain": gains.get(row.peer)}) for row in rows]


def _foreign_logits(file: Path, subject: Subject, worker: Sequence[str]) -> np.ndarray:
    output = file.with_name("logits.npy")
    command = [*worker, str(file), str(subject.comparison), str(output)]
    ended = run_bounded(command, timeout_s=_ANSWER_SECONDS, environ=clean_environ(1))
    if (reason := ended.reason(_ANSWER_SECONDS)) is not None:
        raise ModelFileError(fault(file.name, "its runtime cannot run it", got=reason))
    return np.load(output)


def _kernels(file: Path) -> dict[str, object]:
    integers, floats = count_kernels(file)
    total = integers + floats
    return {"integer_ops": integers, "float_ops": floats, "coverage": integers / total if total else None}


def _zeros(file: Path, pattern: str | None) -> dict[str, object]:
    if pattern is None:
        return {}
    found = check_sparsity(file, pattern)
    return {"pattern": pattern, "violations": found.violations, "sparse_layers": found.layers}
