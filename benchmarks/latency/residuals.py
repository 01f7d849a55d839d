"""What the fit leaves over, spread to networks alike (:mod:`edgekd.profiles.estimation.alike`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from cases import row_case
from numpy.typing import NDArray
from rows import Row
from scipy.linalg import cho_factor, cho_solve

from edgekd.profiles.estimation.alike import NOISE, Alike, Likeness, case_of, likeness
from edgekd.profiles.estimation.operators import Workload

Floats = NDArray[np.float64]
# Log time. A row that is further off is an outlier, and says no more than this.
_MOST = 0.5


@dataclass(frozen=True)
class Neighbours:
    """All rows and how alike any two of them are."""

    rows: Sequence[Likeness]
    covariance: Floats

    def weights(self, residuals: Floats, keep: NDArray[np.bool_]) -> Floats:
        """Of the rows in ``keep``; ``residuals`` of all rows, of which the others are not read."""
        kept = np.flatnonzero(keep)
        matrix = self.covariance[np.ix_(kept, kept)] + NOISE**2 * np.eye(len(kept))
        return np.asarray(cho_solve(cho_factor(matrix), np.clip(residuals[kept], -_MOST, _MOST)))

    def corrections(self, residuals: Floats, keep: NDArray[np.bool_]) -> Floats:
        """Of every row, from those in ``keep`` alone."""
        return np.asarray(self.covariance[:, np.flatnonzero(keep)] @ self.weights(residuals, keep))

    def alike(self, residuals: Floats) -> Alike:
        """All rows as data."""
        return Alike(self.rows, self.weights(residuals, np.ones(len(self.rows), dtype=np.bool_)))


def neighbours_of(rows: Sequence[Row], networks: Mapping[tuple[str, str], Workload]) -> Neighbours:
    found = [case_of(*row_case(row, networks)) for row in rows]
    return Neighbours(found, likeness(found, found))
