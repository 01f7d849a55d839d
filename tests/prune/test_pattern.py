"""The mask and the numpy check against hand-written tensors; the axis is the reduction axis."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from edgekd.errors import PreconditionError, RecipeError
from edgekd.prune.check import violations
from edgekd.prune.pattern import Pattern, nm_mask


@pytest.mark.parametrize("text", ["4:2", "2:2", "0:4", "2", "a:b", "-1:4", "2:4:8", ""])
def test_a_pattern_is_refused_unless_n_is_below_m(text: str) -> None:
    with pytest.raises(RecipeError, match=r"^pattern: not an N:M pattern"):
        Pattern.parse(text)


def test_a_pattern_prints_as_it_was_written() -> None:
    assert str(Pattern.parse("2:4")) == "2:4"
    assert Pattern.parse(Pattern(1, 4)) == Pattern(1, 4)


def test_linear_mask_golden() -> None:
    weight = torch.tensor(
        [[1.0, -4.0, 2.0, 3.0, 0.1, 0.2, -0.4, 0.3], [9.0, 8.0, 7.0, 6.0, 0.0, 1.0, 0.0, -2.0]]
    )
    expected = torch.tensor([[0, 1, 0, 1, 0, 0, 1, 1], [1, 1, 0, 0, 0, 1, 0, 1]], dtype=torch.bool)
    assert torch.equal(nm_mask(weight, weight.abs(), Pattern(2, 4)), expected)


def test_conv_mask_golden_groups_input_channels_at_each_kernel_position() -> None:
    # (O=1, I=4, kh=1, kw=2): at kw 0 the channels hold 1 2 3 4, at kw 1 they hold 9 8 7 6.
    weight = torch.tensor([[[[1.0, 9.0]], [[2.0, 8.0]], [[3.0, 7.0]], [[4.0, 6.0]]]])
    expected = torch.tensor([[[[0, 1]], [[0, 1]], [[1, 0]], [[1, 0]]]], dtype=torch.bool)
    assert torch.equal(nm_mask(weight, weight.abs(), Pattern(2, 4)), expected)


def test_conv_groups_run_along_neither_outputs_nor_the_kernel() -> None:
    """Large at input channels 0 and 1 alone: groups of outputs or of kernel positions would keep others."""
    weight = torch.full((8, 4, 2, 2), 0.1)
    weight[:, :2] = 1.0
    mask = nm_mask(weight, weight.abs(), Pattern(2, 4))
    assert mask[:, :2].all()
    assert not mask[:, 2:].any()
    masked = (weight * mask).numpy()
    assert violations(masked, "2:4", "conv") == 0
    assert violations(masked, "2:4", "conv", axis=0) > 0
    assert violations(masked.transpose(0, 2, 3, 1).copy(), "2:4", "conv", axis=0) > 0


@pytest.mark.parametrize(("n", "m"), [(1, 4), (2, 4), (2, 8), (4, 8), (1, 2), (3, 16)])
@pytest.mark.parametrize("shape", [(6, 32), (5, 16, 3, 3), (4, 48, 1, 1)])
def test_every_group_keeps_exactly_the_n_largest(n: int, m: int, shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    mask = nm_mask(weight, weight.abs(), Pattern(n, m))
    moved = weight.abs().movedim(1, -1).reshape(-1, m)
    chosen = mask.movedim(1, -1).reshape(-1, m)
    assert (chosen.sum(1) == n).all()
    assert torch.allclose((moved * chosen).sum(1), moved.topk(n, dim=1).values.sum(1))
    kind = "linear" if len(shape) == 2 else "conv"
    assert violations((weight * mask).numpy(), f"{n}:{m}", kind) == 0
    groups = weight.numel() // m
    assert violations(weight.numpy(), f"{n}:{m}", kind) == groups


def test_ties_keep_the_lowest_index() -> None:
    ones = torch.ones(2, 8)
    assert nm_mask(ones, ones, Pattern(2, 4)).tolist() == [[True, True, False, False] * 2] * 2
    late = torch.tensor([[1.0, 2.0, 1.0, 1.0]])
    assert nm_mask(late, late, Pattern(2, 4)).tolist() == [[True, True, False, False]]


def test_a_reduction_axis_that_does_not_divide_is_refused() -> None:
    weight = torch.randn(4, 6)
    with pytest.raises(ValueError, match="2:4"):
        nm_mask(weight, weight.abs(), Pattern(2, 4))
    with pytest.raises(PreconditionError, match=r"^fc1: the reduction axis is not a multiple of 4; got 6$"):
        violations(weight.numpy(), "2:4", "linear", where="fc1")
    with pytest.raises(PreconditionError, match="conv"):
        violations(weight.numpy(), "2:4", "conv")


def test_violations_are_counted_in_integers_and_in_transposed_initialisers() -> None:
    good = np.array([[0, -3, 0, 5], [7, 0, 0, 0]], dtype=np.int8)
    bad = np.array([[1, -3, 0, 5], [7, 0, 0, 0]], dtype=np.int8)
    assert violations(good, "2:4", "linear") == 0
    assert violations(bad, "2:4", "linear") == 1
    assert violations(bad.T.copy(), "2:4", "linear", axis=0) == 1
    assert violations(np.stack([bad.T, bad.T]), "2:4", "linear", axis=-2) == 2
    # Minus zero is zero; the smallest integer is not.
    assert violations(np.array([[-0.0, -0.0, 1.0, 1.0]]), "2:4", "linear") == 0
    assert violations(np.full((1, 4), -128, np.int8), "2:4", "linear") == 1


def test_the_check_loads_no_torch() -> None:
    code = "import sys, edgekd.prune.check; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
