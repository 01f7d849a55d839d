"""Count the groups that break an N:M pattern in a plain array: a trained weight or an ONNX initialiser.

numpy only, so that ``edgekd check`` and the read-back of an exported file need no torch.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from edgekd.errors import PreconditionError, fault
from edgekd.prune.pattern import Pattern


def violations(
    array: np.ndarray,
    pattern: Pattern | str,
    kind: Literal["conv", "linear"],
    *,
    axis: int | None = None,
    where: str = "weight",
) -> int:
    """How many groups of ``m`` along the reduction axis hold more than ``n`` non-zeros.

    For an integer initialiser zero means the stored 0, which is the float zero only if the zero point is 0
    (symmetric weights).

    Args:
        array: integer or float; a convolution is ``(O, I/groups, *kernel)``.
        pattern: such as ``"2:4"``.
        kind: ``"conv"``: axis 1 is the reduction. ``"linear"``: axis 1 of ``(out, in)``, the layout of torch
            and of ``Gemm`` with ``transB=1``.
        axis: the reduction axis where it is another one: 0 for ``(in, out)``, the layout of ``MatMul`` and of
            ``Gemm`` with ``transB=0``; -2 for a batched ``MatMul``.
        where: the layer's or initialiser's name, for the message.

    Returns:
        The number of bad groups; 0 means that the pattern holds.

    Raises:
        PreconditionError: the reduction axis is not a multiple of ``m``, or a dimension is missing.
    """
    pattern = Pattern.parse(pattern)
    axis = 1 if axis is None else axis
    least = 3 if kind == "conv" else 2
    if array.ndim < least or not -array.ndim <= axis < array.ndim:
        raise PreconditionError(
            fault(
                where, f"not the weight of a {kind} layer", got=array.shape, allowed=f"{least} axes or more"
            )
        )
    if array.shape[axis] % pattern.m:
        raise PreconditionError(
            fault(where, f"the reduction axis is not a multiple of {pattern.m}", got=array.shape[axis])
        )
    kept = np.moveaxis(array != 0, axis, -1)
    per_group = np.count_nonzero(kept.reshape(*kept.shape[:-1], -1, pattern.m), axis=-1)
    return int(np.count_nonzero(per_group > pattern.n))
