"""Random inputs for a model whose data are not at hand: shape and type decide the speed, not the values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgekd.errors import ModelFileError, fault
from edgekd.profiles.session import check_shape, input_dtype

Shape = Sequence[int] | Mapping[str, Sequence[int]] | None


def random_inputs(
    declared: Sequence[Any], *, batch: int = 1, shape: Shape = None, seed: int = 0
) -> dict[str, np.ndarray]:
    """One array for each declared input of a session.

    Floats are uniform in [-1, 1), unsigned bytes in 0..255, other integers 0 or 1: valid as a mask, a
    token type and a token number.

    Args:
        declared: ``session.get_inputs()``.
        shape: dimensions after the batch (or with it), for every input with an open one, or by input name.

    Raises:
        ModelFileError: an open dimension without ``shape``, or a fixed one that differs; one line.
    """
    generator = np.random.default_rng(seed)
    known = {entry.name for entry in declared}
    if isinstance(shape, Mapping) and (unknown := sorted(set(shape) - known)):
        raise ModelFileError(
            fault("shape", "no such input", got=unknown[0], allowed=", ".join(sorted(known)))
        )
    feeds = {}
    for entry in declared:
        if isinstance(shape, Mapping):
            given = shape.get(entry.name)
        else:
            # With several inputs a plain shape is for those that the file leaves open.
            given = shape if len(declared) == 1 or _is_open(entry) else None
        feeds[entry.name] = _random(generator, input_dtype(entry), _resolve(entry, batch, given))
    return feeds


def _resolve(entry: Any, batch: int, given: Sequence[int] | None) -> tuple[int, ...]:
    dims = list(entry.shape)
    if not dims:
        return ()
    spot = f"ONNX input {entry.name!r}"
    if isinstance(dims[0], int) and dims[0] != batch:
        fix = f"measure with --batch {dims[0]}"
        raise ModelFileError(
            fault(spot, "the batch is fixed in the file", got=batch, allowed=str(dims[0]), fix=fix)
        )
    rest = dims[1:]
    if given is not None:
        if any(size < 1 for size in given):
            raise ModelFileError(fault("shape", "dimensions must be at least 1", got=list(given)))
        if len(given) == len(dims) and given[0] == batch:
            given = given[1:]
        check_shape(entry.name, rest, tuple(given))
        return (batch, *(int(size) for size in given))
    if _is_open(entry):
        names = ", ".join(str(dim) for dim in rest)
        fix = "give the dimensions after the batch, such as --shape 3,224,224"
        raise ModelFileError(fault(spot, "open dimensions besides the batch", got=names, fix=fix))
    return (batch, *rest)


def _is_open(entry: Any) -> bool:
    return any(not isinstance(dim, int) for dim in entry.shape[1:])


def _random(generator: np.random.Generator, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    if np.issubdtype(dtype, np.floating):
        return generator.uniform(-1.0, 1.0, shape).astype(dtype)
    high = 256 if dtype is np.uint8 else 2
    return generator.integers(0, high, shape).astype(dtype)
