"""Whether a weight is 2:4 sparse, judged by a few of its rows."""

from __future__ import annotations

import numpy as np

from edgekd.profiles.estimation.graph import Weight


def is_2to4(weight: Weight, *, reduction: int) -> bool:
    """At most two of any four neighbours along axis ``reduction`` are not zero, in all rows that were sampled.

    Args:
        reduction: axis of the weight that a product sums over: 1 of a convolution's ``(out, in, ...)``.
    """
    if weight.sample is None:
        return False
    rows = weight.sample()
    if weight.transposed:
        reduction = 1 - reduction
    if rows is None or rows.ndim < 2:
        return False
    moved = np.moveaxis(rows, reduction, -1)
    if moved.shape[-1] < 4:
        return False
    whole = moved[..., : moved.shape[-1] // 4 * 4]
    if whole.shape[-1] != moved.shape[-1] and reduction != 0:
        return False  # TensorRT wants whole groups
    groups = whole.reshape(-1, 4)
    return bool((np.count_nonzero(groups, axis=1) <= 2).all())
