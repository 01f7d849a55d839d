"""Operators as columns: what the price of each is computed from, all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.profiles.estimation.operators import FAMILIES, Operator

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# Families whose time is multiply-accumulates; all others move elements.
PRODUCTS = (
    "conv-dense-3x3", "conv-1x1", "conv-dense-other", "conv-depthwise", "conv-grouped", "conv-first", "deconv",
    "gemm", "matmul-tokens", "attention", "recurrent",
)  # fmt: skip
FREE = ("reshape",)


@dataclass(frozen=True)
class OpTable:
    """Columns of length n, one row an operator. Counts are in elements.

    Attributes:
        family: index into ``FAMILIES``.
        single: the family that one group of a grouped convolution would be of by itself; else as ``family``.
        rows, columns, depth: of the matrix product that the operator is: output pixels, output channels of
            one group, terms of one sum.
    count: how many such operators there are; identical ones may share a row.
    """

    family: Ints
    single: Ints
    macs: Floats
    inputs: Floats
    outputs: Floats
    weights: Floats
    rows: Floats
    columns: Floats
    depth: Floats
    groups: Floats
    integer: Bools
    fusable: Bools
    sparse: Bools
    half: Bools
    count: Floats

    @property
    def size(self) -> int:
        return len(self.family)

    def of(self, family: str) -> Ints:
        """Which operators belong to a family."""
        return np.flatnonzero(self.family == FAMILIES.index(family))


def op_table(operators: Sequence[Operator], counts: Sequence[int] | None = None) -> OpTable:
    """The columns of a workload's operators; ``counts``: how many of each there are."""

    def column(values: Sequence[float]) -> Floats:
        return np.asarray(values, dtype=np.float64)

    def flags(values: Sequence[bool]) -> Bools:
        return np.asarray(values, dtype=np.bool_)

    groups = column([max(1, op.groups) for op in operators])
    channels_out = column([max(1, op.channels_out) for op in operators])
    macs = column([op.macs for op in operators])
    outputs = column([op.output_elements for op in operators])
    columns = np.maximum(1.0, channels_out / np.where(_batched(operators), 1.0, groups))
    return OpTable(
        family=np.asarray([_family(op) for op in operators], dtype=np.int64),
        single=np.asarray([_single(op) for op in operators], dtype=np.int64),
        macs=macs,
        inputs=column([op.input_elements for op in operators]),
        outputs=outputs,
        weights=column([_weights(op) for op in operators]),
        rows=np.maximum(1.0, outputs / (columns * groups)),
        columns=columns,
        depth=np.maximum(1.0, macs / np.maximum(1.0, outputs)),
        groups=groups,
        integer=flags([op.integer for op in operators]),
        fusable=flags([op.fusable for op in operators]),
        sparse=flags([op.sparse_2to4 for op in operators]),
        half=flags([op.element_bytes == 2 for op in operators]),
        count=column(counts or [1] * len(operators)),
    )


def _weights(op: Operator) -> float:
    """Blocks of 4 or 8 bits are read as they are stored: what they weigh in elements of 4 bytes."""
    return op.weight_bytes / 4 if op.op == "MatMulNBits" else op.weight_elements


def _family(op: Operator) -> int:
    """Winograd needs channels to work on: a thin 3x3 convolution runs as any other."""
    thin = min(op.channels_in, op.channels_out) < 16
    name = "conv-dense-other" if op.family == "conv-dense-3x3" and thin else op.family
    return FAMILIES.index(name)


def _single(op: Operator) -> int:
    if op.family != "conv-grouped":
        return _family(op)
    if op.kernel == (1, 1):
        return FAMILIES.index("conv-1x1")
    winograd = op.kernel == (3, 3) and op.stride == op.dilation == 1
    thin = min(op.channels_in, op.channels_out) < 16 * op.groups
    return FAMILIES.index("conv-dense-3x3" if winograd and not thin else "conv-dense-other")


def _batched(operators: Sequence[Operator]) -> Bools:
    """Products of activations: their groups are matrices, and ``channels_out`` the columns of one."""
    return np.asarray([op.family == "attention" for op in operators], dtype=np.bool_)
