from __future__ import annotations

import numpy as np

from edgekd.data.hashing import (
    fold,
    fold_array,
    permutation,
    splitmix64,
    splitmix64_array,
    text_key,
    uniforms,
)


def test_splitmix64_gives_the_published_numbers() -> None:
    """Seed 1234567; values as Rosetta Code and the reference splitmix64.c give them."""
    golden = 0x9E3779B97F4A7C15
    states = [(1234567 + step * golden) % 2**64 for step in range(3)]
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [splitmix64(state) for state in states] == expected
    assert splitmix64_array(np.array(states, np.uint64)).tolist() == expected


def test_arrays_and_integers_agree() -> None:
    values = np.array([0, 1, 59_999, 2**40])
    assert fold_array(fold(7, 3), values).tolist() == [fold(7, 3, value) for value in values.tolist()]


def test_the_order_of_the_parts_matters() -> None:
    assert len({fold(1, 2), fold(2, 1), fold(1, 2, 0), fold(0, 1, 2), fold(-1), fold(1)}) == 6


def test_uniforms_are_uniform_and_uncorrelated() -> None:
    numbers = uniforms(fold_array(fold(0, 0), np.arange(20_000)), 4)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert np.abs(numbers.mean(axis=0) - 0.5).max() < 0.01
    correlation = np.corrcoef(np.vstack([numbers[:-1].T, numbers[1:].T]))
    assert np.abs(correlation - np.eye(8)).max() < 0.03


def test_a_permutation_depends_on_its_seed_alone() -> None:
    assert sorted(permutation(5, 100).tolist()) == list(range(100))
    # Pinned: a run must replay on another machine.
    assert permutation(5, 8).tolist() == [1, 5, 2, 3, 7, 0, 6, 4]
    assert (permutation(5, 100) != permutation(6, 100)).any()


def test_text_keys_take_any_seed_and_any_file_name() -> None:
    assert text_key(0, "cat/1.jpg") == 15132351748868210994
    keys = {text_key(seed, name) for seed in (0, -1, 2**40) for name in ("a", "b", "\udcff")}
    assert len(keys) == 9
