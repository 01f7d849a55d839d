"""Sums and products of two bytes as ONNX Runtime's kernels compute them, on x86 and on Arm.

They are the only integer operations that differ between the two (found by running every kind on both, a million
values each, 1.31: convolution, pooling, concatenation, tables and quantization agree). x86 adds in float32 and
rounds to even after adding the zero point; Arm adds 22-bit multiples and rounds a half away from zero before it.
Arm multiplies with one rounding where x86 makes two. Formulas: MLAS, ``qladd`` and ``qlmul``.

Integers are float64 tensors, less their zero points.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

_BITS = 21  # of Arm's larger multiplier, below its leading one
_LEAST, _MOST = 2.0**-14, 256.0  # ratios of scales that its integer kernel takes


class Grid(NamedTuple):
    """The integers of one tensor. ``low`` and ``high`` are less the zero point; ``scale`` is a float32 number."""

    scale: float
    low: int
    high: int
    zero: int


def sum_x86(a: Tensor, b: Tensor, left: Grid, right: Grid, out: Grid) -> Tensor:
    """``a + b`` in integers of ``out``."""
    by_a, by_b = _ratio(left, out), _ratio(right, out)
    # Fused multiply-adds: float64 holds the products exactly, one rounding to float32 each.
    shift = _single(by_a * left.zero + _single(by_b * right.zero))
    fixed = _single(out.zero - shift)
    first = ((b + right.zero) * by_b).add_(fixed).float()
    both = (a + left.zero) * by_a + first
    return _cut(both.float().round_().double().sub_(out.zero), out)


def sum_arm(a: Tensor, b: Tensor, left: Grid, right: Grid, out: Grid) -> Tensor | None:
    """As :func:`sum_x86`; None where Arm has another kernel, for scales that lie far apart."""
    ratios = _ratio(left, out), _ratio(right, out)
    if min(ratios) < _LEAST or max(ratios) >= _MOST:
        return None
    unit = 2.0 ** (_BITS - math.floor(math.log2(max(ratios))))
    by_a, by_b = (float(round(ratio * unit)) for ratio in ratios)
    if max(by_a, by_b) >= 2.0 ** (_BITS + 1):
        return None
    total = (a * by_a + b * by_b).div_(unit)  # exact: at most 31 bits
    return _cut((total.abs() + 0.5).floor_().mul_(total.sign()), out)


def product_x86(a: Tensor, b: Tensor, left: Grid, right: Grid, out: Grid) -> Tensor:
    """``a * b`` in integers of ``out``."""
    value = (a * b).float().mul_(_factor(left, right, out)).add_(out.zero)
    return _cut(value.round_().double().sub_(out.zero), out)


def product_arm(a: Tensor, b: Tensor, left: Grid, right: Grid, out: Grid) -> Tensor:
    """As :func:`product_x86`."""
    value = (a * b).mul_(_factor(left, right, out)).add_(out.zero).float()
    return _cut(value.round_().double().sub_(out.zero), out)


def same_on_arm(product: bool, left: Grid, right: Grid, out: Grid, constant: int | None = None) -> bool:
    """x86 and Arm give the same integer for every two bytes.

    Args:
        product: else the sum.
        constant: the only value of ``right``, less its zero point.
    """
    a = _all(left).unsqueeze(1)
    b = _all(right) if constant is None else torch.tensor([float(constant)], dtype=torch.float64)
    arm = (product_arm if product else sum_arm)(a, b, left, right, out)
    x86 = (product_x86 if product else sum_x86)(a, b, left, right, out)
    return arm is not None and torch.equal(arm, x86)


def _all(grid: Grid) -> Tensor:
    return torch.arange(grid.low, grid.high + 1, dtype=torch.float64)


def _cut(value: Tensor, out: Grid) -> Tensor:
    return value.clamp_(out.low, out.high)


def _ratio(grid: Grid, out: Grid) -> float:
    return float(torch.tensor(grid.scale) / torch.tensor(out.scale))


def _factor(left: Grid, right: Grid, out: Grid) -> float:
    return float(torch.tensor(left.scale) * torch.tensor(right.scale) / torch.tensor(out.scale))


def _single(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float64).float())
