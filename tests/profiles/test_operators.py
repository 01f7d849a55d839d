"""The per-operator profile: from recorded events, and from ONNX Runtime itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.errors import ModelFileError
from edgekd.profiles import profile_operators
from edgekd.profiles.operators import operator_costs


def event(
    node: str, operator: str, duration: float, cat: str = "Node", suffix: str = "_kernel_time"
) -> dict[str, object]:
    args = {"op_name": operator, "provider": "CPUExecutionProvider"}
    return {"cat": cat, "name": node + suffix, "dur": duration, "args": args}


def test_rows_are_of_usual_runs_without_warm_up_the_slowest_first() -> None:
    events = [
        {"cat": "Session", "name": "model_run", "dur": 999},
        event("conv", "Conv", 500),
        event("relu", "Relu", 50),
        event("conv", "Conv", 60, suffix="_fence_before"),
        event("conv", "Conv", 40),
        event("relu", "Relu", 10),
        event("conv", "Conv", 20),
        event("relu", "Relu", 10),
    ]
    rows = operator_costs(events, warmup=1)
    assert [(row.op_type, row.node, row.mean_us) for row in rows] == [
        ("Conv", "conv", 30.0),
        ("Relu", "relu", 10.0),
    ]
    assert [row.share for row in rows] == [0.75, 0.25]
    assert rows[0].to_json() == {
        "op_type": "Conv",
        "node": "conv",
        "mean_us": 30.0,
        "share": 0.75,
        "position": 0,
        "provider": "cpu",
        "nodes": [],
        "layers": [],
    }
    assert [row.position for row in operator_costs(list(reversed(events)), warmup=1)] == [1, 0]


def test_a_run_that_was_interrupted_does_not_make_its_operator_the_slowest() -> None:
    quiet = [event("conv", "Conv", 40) for _ in range(7)] + [event("relu", "Relu", 10) for _ in range(7)]
    busy = [event("conv", "Conv", 44), event("relu", "Relu", 9_000)]
    rows = operator_costs(quiet + busy)
    assert [(row.node, row.mean_us, row.share) for row in rows] == [("conv", 40.0, 0.8), ("relu", 10.0, 0.2)]


def test_an_operator_of_less_than_a_microsecond_is_not_free() -> None:
    # The profiler counts whole microseconds: a median of these would be 0.
    events = [event("relu", "Relu", duration) for duration in (0, 1, 0, 0, 1, 0, 1, 0)]
    assert operator_costs(events)[0].mean_us == 0.25


def test_no_events_are_no_rows() -> None:
    assert operator_costs([]) == []


def test_the_runtimes_own_profile(
    make_onnx: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = make_onnx(features=4096, dims=("n", 64, 64), classes=1000)
    before = set(tmp_path.iterdir())
    rows = profile_operators(path, runs=5, warmup=2)
    assert {row.op_type for row in rows} & {"MatMul", "Gemm", "FusedMatMul"}
    assert "Relu" in {row.op_type for row in rows}
    assert rows == sorted(rows, key=lambda row: -row.share)
    assert sum(row.share for row in rows) == pytest.approx(1.0)
    # 4 million multiplications take longer than nothing, and less than a second.
    assert 1 < sum(row.mean_us for row in rows) < 1e6
    assert set(tmp_path.iterdir()) == before


def test_a_broken_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ModelFileError, match="not an ONNX file"):
        profile_operators(tmp_path / "bad.onnx")
