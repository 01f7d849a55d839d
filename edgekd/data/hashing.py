"""Random numbers that are a function of what they are for, not of who asked before.

SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014) turns
``(seed, slot, sample)`` into a stream of its own. So a sample's augmentation does not depend on the batch,
the order, the loader process or the library version, and a teacher's stored answer can be replayed.
"""

from __future__ import annotations

import hashlib

import numpy as np

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def splitmix64(state: int) -> int:
    """The 64-bit output of SplitMix64 for one state."""
    z = (state + _GOLDEN) & _MASK
    z = ((z ^ (z >> 30)) * _FIRST) & _MASK
    z = ((z ^ (z >> 27)) * _SECOND) & _MASK
    return z ^ (z >> 31)


def splitmix64_array(states: np.ndarray) -> np.ndarray:
    """:func:`splitmix64` of uint64 ``states``, any shape of at least one dimension."""
    z = states + np.uint64(_GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_FIRST)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_SECOND)
    return z ^ (z >> np.uint64(31))


def fold(*parts: int) -> int:
    """One 64-bit number for a tuple of integers; the order of the parts matters."""
    state = 0
    for part in parts:
        state = splitmix64(state ^ (part & _MASK))
    return state


def fold_array(prefix: int, values: np.ndarray) -> np.ndarray:
    """``fold(*parts, value)`` for each of int64 ``values`` ``(n,)``, where ``prefix = fold(*parts)``."""
    return splitmix64_array(np.asarray(values, np.int64).astype(np.uint64) ^ np.uint64(prefix))


def uniforms(states: np.ndarray, count: int) -> np.ndarray:
    """``count`` uniform numbers in [0, 1) for each uint64 state ``(n,)``: float64 ``(n, count)``."""
    steps = np.arange(count, dtype=np.uint64) * np.uint64(_GOLDEN)
    bits = splitmix64_array(states[:, None] + steps[None, :])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(seed: int, count: int) -> np.ndarray:
    """A permutation of ``range(count)`` that depends on ``seed`` alone: int64 ``(count,)``."""
    return np.argsort(fold_array(fold(seed, 0x6F72646572), np.arange(count)), kind="stable")


def text_key(seed: int, text: str) -> int:
    """A 64-bit key of ``text``, another one for each ``seed``."""
    salt = (seed & _MASK).to_bytes(hashlib.blake2b.SALT_SIZE, "little")
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, salt=salt).digest()
    return int.from_bytes(digest, "little")
