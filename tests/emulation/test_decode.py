"""Instruction words to classes. The golden words are what LLVM's assembler (llvm-mc 14) writes for each line."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.profiles.emulation.decode import CLASSES, instruction_class

GOLDEN = [
    line.split(" | ")
    for line in (Path(__file__).parent / "golden" / "instructions.txt").read_text().splitlines()
]


@pytest.mark.parametrize(("word", "expected", "text"), GOLDEN, ids=[row[2] for row in GOLDEN])
def test_class_of_a_real_instruction(word, expected, text):
    assert instruction_class(int(word, 16)) == expected, text


def test_every_class_occurs_in_the_golden_words():
    assert {row[1] for row in GOLDEN} == set(CLASSES)


def test_every_word_has_a_class():
    # No word may fall through: 64 k words spread over the whole range.
    assert {instruction_class(k * 65521) for k in range(1 << 16)} <= set(CLASSES)
