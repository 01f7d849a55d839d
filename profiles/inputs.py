"""Random inputs for a model whose data are not at hand: shape and type decide the speed, not the values.

A text model leaves its length open; 128 tokens are the length at which encoders are usually compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.errors import ModelFileError, fault
from edgekd.profiles.session import check_shape, input_dtype

DEFAULT_TOKENS = 128  # of a text, where the file leaves its length open and nobody says
_TOKENS = "input_ids"
_BESIDE_TOKENS = {"attention_mask": 1, "token_type_ids": 0}  # every token takes part, all in one segment

if TYPE_CHECKING:
    Shape = Sequence[int] | Mapping[str, Sequence[int]] | None
else:
    Shape = object  # Python 3.8 on a board cannot evaluate it


@dataclass(frozen=True)
class TextLimits:
    """How many token numbers a text model knows (a hundred any tokenizer has), and how many it is fed."""

    vocabulary: int = 100
    length: int = DEFAULT_TOKENS


def random_inputs(
    declared: Sequence[Any],
    *,
    batch: int = 1,
    shape: Shape = None,
    seed: int = 0,
    text: TextLimits | None = None,
) -> dict[str, np.ndarray]:
    """One array for each declared input of a session.

    Floats are uniform in [-1, 1), unsigned bytes in 0..255, other integers 0 or 1: valid as a mask and a
    token type. ``input_ids`` are token numbers from 1 to ``vocabulary - 1``, 128 of them where the file leaves
    the length open (or as many as the model takes), and a mask beside them is 1.

    Args:
        declared: ``session.get_inputs()``.
        shape: dimensions after the batch (or with it), for every input with an open one, or by input name.
        text: what a text model takes, see :func:`text_limits`.

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
    limits = text or TextLimits()
    reads_text = any(_is_sequence(entry) and entry.name == _TOKENS for entry in declared)
    for entry in declared:
        if isinstance(shape, Mapping):
            given = shape.get(entry.name)
        else:
            # With several inputs a plain shape is for those that the file leaves open.
            given = shape if len(declared) == 1 or _is_open(entry) else None
        beside = (
            reads_text and _is_sequence(entry) and (entry.name == _TOKENS or entry.name in _BESIDE_TOKENS)
        )
        if beside and given is None and _is_open(entry):
            given = (limits.length,)
        values = _random(generator, input_dtype(entry), _resolve(entry, batch, given))
        if beside and entry.name == _TOKENS:
            values = generator.integers(1, limits.vocabulary, values.shape).astype(values.dtype)
        elif beside:
            values = np.full_like(values, _BESIDE_TOKENS[entry.name])
        feeds[entry.name] = values
    return feeds


def text_limits(session: Any) -> TextLimits:
    """As the metadata of the session's file state them, where edgekd wrote it."""
    return stated_limits(session.get_modelmeta().custom_metadata_map)


def stated_limits(metadata: Mapping[str, str]) -> TextLimits:
    """As a file's metadata state them, where edgekd wrote it."""
    try:
        stated = json.loads(metadata["preprocess"])
        length, vocabulary = int(stated["max_length"]), int(stated["vocab_size"])
    except (ValueError, KeyError, TypeError):
        return TextLimits()
    return TextLimits(max(2, vocabulary), max(1, min(DEFAULT_TOKENS, length)))


def _is_sequence(entry: Any) -> bool:
    return len(entry.shape) == 2 and np.issubdtype(input_dtype(entry), np.integer)


def _resolve(entry: Any, batch: int, given: Sequence[int] | None) -> tuple[int, ...]:
    dims = list(entry.shape)
    if not dims:
        return ()
    spot = f"input {entry.name!r}"
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
