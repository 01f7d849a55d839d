"""Least squares in the logarithm of time, robust, each parameter drawn to what is known without data.

Times are sums of terms (:mod:`edgekd.profiles.estimation.terms`), so the derivative by a parameter is a sum of terms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve

from edgekd.profiles.estimation.terms import COMPUTE, MEMORY, SHARPNESS, Terms

Floats = NDArray[np.float64]
# Residuals beyond this (in log time) count less: labs differ by 1.19x in the median.
_SCALE = 0.15
# A step that gains less of the loss than this is the last.
_GAIN = 1e-4


@dataclass(frozen=True)
class Prior:
    """``robust``: values far beyond ``spread`` are possible, and then pull nothing else along."""

    mean: float
    spread: float
    low: float = -np.inf
    high: float = np.inf
    robust: bool = False


@dataclass(frozen=True)
class Case:
    """One row: its terms, what it is offset by as a whole, and its logarithm of seconds."""

    terms: Terms
    offsets: tuple[str, ...]
    log_seconds: float
    weight: float


@dataclass(frozen=True)
class Problem:
    """All rows, flattened: operators, groups of terms, parameters."""

    names: tuple[str, ...]
    prior_mean: Floats
    prior_spread: Floats
    low: Floats
    high: Floats
    robust: NDArray[np.bool_]
    row_of_op: NDArray[np.int64]
    op_of_term: NDArray[np.int64]
    slot_of_term: NDArray[np.int64]
    group_of_term: NDArray[np.int64]
    seconds: Floats
    features: sparse.csr_matrix
    offsets: sparse.csr_matrix
    target: Floats
    weight: Floats

    @property
    def rows(self) -> int:
        return len(self.target)


def build(cases: Sequence[Case], prior: Callable[[str], Prior]) -> Problem:
    """The rows of ``cases`` as one problem."""
    index: dict[str, int] = {}
    rows_of_op, ops, slots, groups, seconds = [], [], [], [], []
    feature_rows, feature_columns, feature_values = [], [], []
    offset_rows, offset_columns = [], []
    first_op = group = 0
    for row, case in enumerate(cases):
        size = case.terms.size + 1
        rows_of_op.append(np.full(size, row))
        for each in case.terms.groups:
            ops.append(each.ops + first_op)
            slots.append(np.full(len(each.ops), each.slot))
            groups.append(np.full(len(each.ops), group))
            seconds.append(each.seconds)
            for name, coefficient in each.features:
                feature_rows.append(group)
                feature_columns.append(index.setdefault(name, len(index)))
                feature_values.append(coefficient)
            group += 1
        for name in case.offsets:
            offset_rows.append(row)
            offset_columns.append(index.setdefault(name, len(index)))
        first_op += size
    names = tuple(index)
    priors = [prior(name) for name in names]
    return Problem(
        names=names,
        prior_mean=np.asarray([each.mean for each in priors]),
        prior_spread=np.asarray([each.spread for each in priors]),
        low=np.asarray([each.low for each in priors]),
        high=np.asarray([each.high for each in priors]),
        robust=np.asarray([each.robust for each in priors]),
        row_of_op=np.concatenate(rows_of_op),
        op_of_term=np.concatenate(ops),
        slot_of_term=np.concatenate(slots),
        group_of_term=np.concatenate(groups),
        seconds=np.concatenate(seconds),
        features=sparse.csr_matrix(
            (feature_values, (feature_rows, feature_columns)), shape=(group, len(names))
        ),
        offsets=sparse.csr_matrix(
            (np.ones(len(offset_rows)), (offset_rows, offset_columns)), shape=(len(cases), len(names))
        ),
        target=np.asarray([case.log_seconds for case in cases]),
        weight=np.asarray([case.weight for case in cases]),
    )


def predict(problem: Problem, theta: Floats, *, offsets: bool = True) -> Floats:
    """Logarithm of seconds of every row."""
    return _forward(problem, theta, offsets=offsets)[0]


def _forward(problem: Problem, theta: Floats, *, offsets: bool = True) -> tuple[Floats, Floats, Floats]:
    """Log seconds, seconds of each term, and what a second of that term adds to its row."""
    value = problem.seconds * np.exp((problem.features @ theta)[problem.group_of_term])
    size = len(problem.row_of_op)
    parts = [
        np.bincount(problem.op_of_term, value * (problem.slot_of_term == slot), minlength=size)
        for slot in (COMPUTE, MEMORY)
    ]
    top = np.maximum(np.maximum(*parts), 1e-30)
    roof = top * sum((part / top) ** SHARPNESS for part in parts) ** (1 / SHARPNESS)
    overhead = np.bincount(problem.op_of_term, value * (problem.slot_of_term > MEMORY), minlength=size)
    total = np.bincount(problem.row_of_op, np.where(top > 1e-30, roof, 0) + overhead, minlength=problem.rows)
    slopes = np.stack(
        [*((part / np.maximum(roof, 1e-30)) ** (SHARPNESS - 1) for part in parts), np.ones(size)]
    )
    log = np.log(total)
    if offsets:
        log = log + problem.offsets @ theta
    return (
        log,
        value,
        slopes[problem.slot_of_term, problem.op_of_term] / total[problem.row_of_op[problem.op_of_term]],
    )


def solve(problem: Problem, *, keep: NDArray[np.bool_] | None = None, steps: int = 40) -> Floats:
    """Parameters that fit the rows in ``keep``: Levenberg-Marquardt on reweighted squares."""
    theta = problem.prior_mean.copy()
    base = problem.weight if keep is None else np.where(keep, problem.weight, 0.0)
    damping, state = 1e-2, _forward(problem, theta)
    best = _loss(problem, theta, state[0], base)
    for _ in range(steps):
        log, value, slope = state
        residual = problem.target - log
        weight = base / np.sqrt(1 + (residual / _SCALE) ** 2) / _SCALE**2
        away = (theta - problem.prior_mean) / problem.prior_spread
        pull = problem.prior_spread**-2 / np.where(problem.robust, np.sqrt(1 + away**2), 1.0)
        # Dense: rows have hundreds of parameters, and BLAS squares them faster than sparse code would.
        root = np.sqrt(weight)
        matrix = _jacobian(problem, value * slope).toarray() * root[:, None]
        normal = matrix.T @ matrix + np.diag(pull)
        gradient = matrix.T @ (root * residual) - pull * (theta - problem.prior_mean)
        for _ in range(8):
            step = cho_solve(cho_factor(normal + damping * np.diag(np.diag(normal))), gradient)
            tried = np.clip(theta + np.clip(step, -1, 1), problem.low, problem.high)
            state = _forward(problem, tried)
            loss = _loss(problem, tried, state[0], base)
            if loss < best:
                break
            damping *= 4
        else:
            return theta
        gain, theta, best, damping = best - loss, tried, loss, max(damping / 5, 1e-6)
        if gain < _GAIN * best:
            break
    return theta


def _jacobian(problem: Problem, weight: Floats) -> sparse.csr_matrix:
    """Derivative of every row's log seconds by every parameter."""
    rows = problem.row_of_op[problem.op_of_term]
    shape = (problem.rows, problem.features.shape[0])
    by_group = sparse.csr_matrix((weight, (rows, problem.group_of_term)), shape=shape)
    return by_group @ problem.features + problem.offsets


def _loss(problem: Problem, theta: Floats, log: Floats, base: Floats) -> float:
    robust = 2 * (np.sqrt(1 + ((problem.target - log) / _SCALE) ** 2) - 1)
    away = ((theta - problem.prior_mean) / problem.prior_spread) ** 2
    return float(base @ robust + np.where(problem.robust, 2 * (np.sqrt(1 + away) - 1), away).sum())


def named(problem: Problem, theta: Floats) -> Mapping[str, float]:
    return dict(zip(problem.names, theta.tolist(), strict=True))
