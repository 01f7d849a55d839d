"""Read an N:M pattern back from the numbers that a file really stores.

The last check of pruning: not the torch mask, not the float weight, but the (integer) initialiser that the
runtime will load.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgekd.errors import ExportError, fault, nearest
from edgekd.export.grouped import holds_groups
from edgekd.export.samples import constant_layers
from edgekd.export.weights import StoredWeight, load_onnx, stored_weights
from edgekd.prune.check import violations
from edgekd.prune.pattern import Pattern


@dataclass(frozen=True)
class SparsityReport:
    """What the file holds.

    Attributes:
        layers: how many checked layers follow the pattern.
        layers_total: how many convolutions and linear layers the file has.
        violations: bad groups of ``m`` in the checked layers.
        skipped: ``"name: reason"`` of every layer that was not checked.
        violating: bad groups by layer, only where there are any.
        integer_layers: how many checked layers store integers.
    """

    pattern: str
    layers: int
    layers_total: int
    violations: int
    skipped: list[str] = field(default_factory=list)
    violating: dict[str, int] = field(default_factory=dict)
    integer_layers: int = 0


def check_sparsity(
    path: Path, pattern: str | Pattern, layers: Collection[str] | None = None
) -> SparsityReport:
    """Count the groups that break ``pattern`` in the weights of an ONNX file.

    Args:
        layers: module names that must follow it. None: every layer that could (not grouped, its reduction
            axis a multiple of ``m``) is checked.

    Raises:
        ModelFileError: no ONNX file.
        ExportError: a named layer is not in the file.
    """
    pattern = Pattern.parse(pattern)
    proto = load_onnx(path)
    weights = list(stored_weights(proto))
    if layers is not None:
        known = {weight.layer for weight in weights} | set(constant_layers(proto))
        missing = [name for name in layers if name not in known]
        if missing:
            what = "a pruned layer is not in the file"
            raise ExportError(fault(str(path), what, got=missing[0], fix=nearest(missing[0], known)))
    checked = integers = 0
    skipped: list[str] = []
    violating: dict[str, int] = {}
    for weight in weights:
        name = weight.layer or weight.node or weight.initializer
        reason = _reason(weight, pattern, layers)
        if reason is not None:
            skipped.append(f"{name}: {reason}")
            continue
        checked += 1
        integers += weight.values.dtype.kind in "iu"
        bad = violations(weight.values, pattern, weight.kind, axis=weight.reduction, where=weight.initializer)
        if bad:
            violating[name] = violating.get(name, 0) + bad
    return SparsityReport(
        str(pattern),
        checked - len(violating),
        len(weights),
        sum(violating.values()),
        skipped,
        violating,
        integers,
    )


def _reason(weight: StoredWeight, pattern: Pattern, layers: Collection[str] | None) -> str | None:
    """Why a layer is not checked; None when it is."""
    if layers is not None:
        return None if weight.layer in layers else "dense by choice"
    if weight.group > 1 or holds_groups(weight.values):
        return "grouped or depthwise convolution"
    if weight.pixels:
        return "the image's pixels are its channels"
    size = _real_size(weight)
    return f"reduction axis {size} is not a multiple of {pattern.m}" if size % pattern.m else None


def _real_size(weight: StoredWeight) -> int:
    """Without the zeros that :mod:`edgekd.export.align` appends to the reduction axis."""
    rows = np.moveaxis(weight.values, weight.reduction, 0)
    used = np.flatnonzero(rows.reshape(len(rows), -1).any(axis=1))
    return int(used[-1]) + 1 if len(used) else len(rows)
