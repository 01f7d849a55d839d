"""Does the written file answer as the trained torch model does, on real samples?

A fused integer kernel rounds once where the Q/DQ graph rounds twice, so single values may differ by one or
two steps of the output scale (measured: the same top-1 on 99.88 % of 10,000 images). What must hold is the
decision: the share of samples with the same top-1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekd.errors import ParityError, fault
from edgekd.profiles.session import open_session, run_batches


@dataclass(frozen=True)
class ParityReport:
    """The file's logits against ``reference``'s, on the same inputs.

    Attributes:
        agreement: share of samples with the same top-1, or the same set of labels.
        max_abs_diff, mean_abs_diff: of single logits.
        reference: what the file was compared with.
    """

    samples: int
    agreement: float
    max_abs_diff: float
    mean_abs_diff: float
    reference: str


def parity(
    expected: np.ndarray,
    written: np.ndarray,
    *,
    reference: str = "trained torch model",
    several: bool = False,
) -> ParityReport:
    """Compare two sets of logits ``(samples, classes)``.

    Args:
        several: a sample may have several labels: they agree where the same logits are above 0.

    Raises:
        ParityError: the shapes differ, there is no sample, or the file's logits are not finite.
    """
    if expected.shape != written.shape or expected.ndim != 2 or not len(expected):
        raise ParityError(
            fault(
                "parity", "the logits have different shapes", got=written.shape, allowed=str(expected.shape)
            )
        )
    if np.isfinite(expected).all() and not np.isfinite(written).all():
        sample = int(np.flatnonzero(~np.isfinite(written).all(axis=1))[0])
        raise ParityError(fault("parity", f"the file's logits of sample {sample} are not finite"))
    if several:
        same = ((expected > 0) == (written > 0)).all(axis=1)
    else:
        same = expected.argmax(1) == written.argmax(1)
    difference = np.abs(expected.astype(np.float64) - written.astype(np.float64))
    return ParityReport(
        samples=len(expected),
        agreement=float(same.mean()),
        max_abs_diff=float(difference.max()),
        mean_abs_diff=float(difference.mean()),
        reference=reference,
    )


def parity_of_file(
    path: Path,
    model: Callable[[np.ndarray], np.ndarray],
    batches: np.ndarray | Iterable[np.ndarray],
    *,
    reference: str = "trained torch model",
    threads: int = 1,
) -> ParityReport:
    """Run ``path`` in ONNX Runtime and ``model`` on the same inputs.

    Args:
        model: float32 ``(batch, channels, height, width)`` to logits ``(batch, classes)``.
        batches: one array of inputs, or batches of them.

    Raises:
        ModelFileError: the file cannot be loaded or run.
        ParityError: as :func:`parity`.
    """
    session = open_session(path, threads=threads)
    expected, written = [], []
    for batch in [batches] if isinstance(batches, np.ndarray) else batches:
        expected.append(np.asarray(model(batch)))
        written.append(run_batches(session, batch))
    if not expected:
        raise ParityError(fault(str(path), "there is no sample to compare on"))
    return parity(np.concatenate(expected), np.concatenate(written), reference=reference)


def require_parity(report: ParityReport, minimum: float, where: str) -> None:
    """Refuse a file whose top-1 agrees on less than ``minimum`` (0 to 1) of the samples.

    Raises:
        ParityError: one line with the agreement and the largest difference.
    """
    if report.agreement < minimum:
        raise ParityError(
            fault(
                where,
                f"the file and the {report.reference} agree on too few of {report.samples} samples "
                f"(largest logit difference {report.max_abs_diff:.3g})",
                got=round(report.agreement, 4),
                allowed=f"at least {minimum}",
            )
        )
