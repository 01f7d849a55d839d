"""Instruction words of AArch64 to classes: what kind of work a core does for each.

Encodings: Arm Architecture Reference Manual for A-profile, chapter C4, "A64 Instruction Set Encoding".
"""

from __future__ import annotations

from functools import lru_cache

CLASSES = (
    "load",  # into general registers
    "store",
    "simd-load",  # into vector registers
    "simd-store",
    "simd-fma",  # fmla, fmls, fmadd: floating-point multiply-add
    "simd-float",  # other floating-point arithmetic, conversions included
    "simd-dot",  # sdot, udot and their kin: 8-bit products added into 32 bits
    "simd-multiply",  # integer multiplies and multiply-adds
    "simd-integer",  # other vector work: integers, bits, moves, permutations
    "multiply",  # and divisions of general registers
    "integer",
    "branch",
    "system",
)
# Bits 31 to 0; a dot matches both. The first row that matches decides.
_ROWS = (
    # Loads and stores: structures, exclusive, literal, unscaled acquire, pairs, one register
    ("0.00110..1......................", "simd-load"),
    ("0.00110..0......................", "simd-store"),
    ("..001000.1......................", "load"),
    ("..001000.0......................", "store"),
    ("..011100........................", "simd-load"),
    ("..011000........................", "load"),
    ("..01100100......................", "store"),
    ("..011001........................", "load"),
    ("..10100..1......................", "load"),
    ("..10100..0......................", "store"),
    ("..10110..1......................", "simd-load"),
    ("..10110..0......................", "simd-store"),
    ("..11100.00......................", "store"),
    ("..11100.........................", "load"),
    ("..11110.00......................", "simd-store"),
    ("0011110.10......................", "simd-store"),  # str q
    ("..11110.........................", "simd-load"),
    # Scalar floating point: three sources; fmov of an immediate, a register, to and from general registers
    ("00011111........................", "simd-fma"),
    ("00011110..1........100..........", "simd-integer"),
    ("00011110..100000010000..........", "simd-integer"),
    (".0011110..10.11.000000..........", "simd-integer"),
    (".0011110........................", "simd-float"),
    # Vectors: three of the same kind
    ("0.0.1110..1.....110011..........", "simd-fma"),
    ("0...1110..1.....11...1..........", "simd-float"),
    ("0...1110..1.....1001.1..........", "simd-multiply"),
    ("0...1110..1.....101101..........", "simd-multiply"),
    ("0...1110..1..........1..........", "simd-integer"),
    ("0.0.1110.10.....000011..........", "simd-fma"),  # half precision
    ("0...1110.10.....00...1..........", "simd-float"),
    ("0...1110..0.....1001.1..........", "simd-dot"),
    ("0...1110..0.....1010.1..........", "simd-dot"),  # smmla, ummla, usmmla
    ("0...1110..0.....11...1..........", "simd-float"),  # fcmla, fcadd
    ("0...1110..0.....1....1..........", "simd-multiply"),  # sqrdmlah, sqrdmlsh
    # Vectors: three of different kinds (smlal, smull, ...), two registers, across the lanes
    ("0...1110..1.....1...00..........", "simd-multiply"),
    ("0...1110..100001001.10..........", "simd-integer"),  # xtn, sqxtun, shll
    ("0...1110..100001010010..........", "simd-integer"),  # sqxtn, uqxtn
    ("0...1110..10000011..10..........", "simd-float"),
    ("0...1110..100001....10..........", "simd-float"),
    ("0...1110..11000011..10..........", "simd-float"),
    ("0...1110.111100.....10..........", "simd-float"),
    ("0...1110........................", "simd-integer"),
    # Vectors by one element; immediates
    ("0.0.1111........0.01.0..........", "simd-fma"),
    ("0...1111........1001.0..........", "simd-float"),
    ("0...1111........1110.0..........", "simd-dot"),
    ("0.0.1111........1111.0..........", "simd-dot"),
    ("0...1111.............0..........", "simd-multiply"),
    ("0...111100000........1..........", "simd-integer"),  # movi, fmov
    ("0...1111........111..1..........", "simd-float"),  # fixed point to float and back
    ("0...1111........................", "simd-integer"),
    # General registers
    ("...11011........................", "multiply"),
    (".0011010110.....00001...........", "multiply"),  # sdiv, udiv
    ("....101.........................", "integer"),
    ("...100..........................", "integer"),
    ("11010100........................", "system"),  # svc and other exceptions
    ("1101010100......................", "system"),  # hints, barriers, system registers
    ("...101..........................", "branch"),
    ("................................", "system"),
)
_TABLE = tuple(
    (int(row.replace("0", "1").replace(".", "0"), 2), int(row.replace(".", "0"), 2), name)
    for row, name in _ROWS
)


@lru_cache(maxsize=1 << 18)
def instruction_class(word: int) -> str:
    """The class of one 32-bit instruction word, one of :data:`CLASSES`.

    >>> instruction_class(0x4F821020)  # fmla v0.4s, v1.4s, v2.s[0]
    'simd-fma'
    """
    return next(name for mask, value, name in _TABLE if word & mask == value)
