"""Networks of a few operators: what it costs to run one, and what its threads wait for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekd.profiles import estimate
from edgekd.profiles.estimation.op_table import op_table
from edgekd.profiles.estimation.operators import Operator
from edgekd.profiles.estimation.runtimes import runtime_kind
from edgekd.profiles.estimation.sharing import add_overheads, threads_of
from edgekd.profiles.estimation.terms import Terms, price

SMALL = Operator("fc", "Gemm", "gemm", macs=40_000, input_elements=400, output_elements=100)
MIDDLE = Operator("mid", "Conv", "conv-1x1", macs=140_000, input_elements=800, output_elements=900)
GROUPS = Operator("dw", "Conv", "conv-depthwise", macs=9_000, input_elements=1_000, output_elements=1_000)
LARGE = Operator("big", "Conv", "conv-1x1", macs=9_000_000, input_elements=8_000, output_elements=9_000)
RELU = Operator("relu", "Relu", "elementwise", input_elements=70_000, output_elements=70_000)
TABLE = op_table([SMALL, MIDDLE, GROUPS, LARGE, RELU])


def test_onnx_runtime_gives_a_thread_for_every_65536_multiply_accumulates() -> None:
    assert threads_of(TABLE, 4, runtime_kind("onnxruntime")).tolist() == [1, 3, 4, 4, 2]
    assert threads_of(TABLE, 1, runtime_kind("onnxruntime")).tolist() == [1] * 5


def test_runtimes_without_a_rule_give_all_threads() -> None:
    assert threads_of(TABLE, 4, runtime_kind("ncnn")).tolist() == [4] * 5


def _overheads(threads: int, cycles: float) -> list[float]:
    terms = Terms(np.ones(1))
    add_overheads(
        terms, op_table([SMALL]), np.asarray([cycles]), ghz=2.0, threads=threads,
        runtime=runtime_kind("onnxruntime"), style="narrow",
    )  # fmt: skip
    return (price(terms, {}).overhead * 1e6).tolist()


def test_waits_grow_with_the_threads_and_come_after_work_alone() -> None:
    assert _overheads(1, 1e9) == pytest.approx([5.0, 50.0])
    assert _overheads(4, 1e9) == pytest.approx([5.0 + 2 * 5.0, 50.0], rel=1e-3)
    assert _overheads(4, 2e3) == pytest.approx([5.0 + 5.0, 50.0])
    assert _overheads(4, 0.0) == pytest.approx([5.0, 50.0])


def test_a_network_of_five_operators_takes_microseconds_on_one_thread(conv_net: Callable[..., Path]) -> None:
    """Measured on such a core: 0.3 to 1.2 microseconds for a node that does next to nothing, 5 for a run."""
    found = estimate(conv_net(((4, 1, 1, 1),) * 5, size=4), "x86-64-avx512-vnni", threads=1)
    assert 0.002 < found.p50_ms < 0.03
    assert not found.validated
    assert any("smallest network published with onnxruntime" in note for note in found.notes)
    assert found.low_ms <= found.p50_ms / 2 and found.high_ms >= found.p50_ms * 2
