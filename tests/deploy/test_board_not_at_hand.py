"""A board that is not at hand: estimates beside estimates, a limit that an estimate must clearly miss."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from edgekd.deploy_estimate import estimate_deployed
from edgekd.device import load_device
from edgekd.errors import EdgeKDError
from edgekd.limits import check_limits
from edgekd.recipe import LimitsRecipe, ProfileRecipe
from edgekd.report.schema_base import Metrics
from edgekd.report.schema_deployed import LatencyFacts

BOARD = load_device("raspberry-pi-4b")


def _entry(*, quantized: bool = True):
    return {
        "file": "deploy/pi/model.onnx", "latency": [], "warnings": [],
        "quantization": {} if quantized else None, "baseline": {"latency": [], "teacher": None},
    }  # fmt: skip


def _recipe(**profile):
    return SimpleNamespace(profile=ProfileRecipe(**profile))


def test_file_and_baseline_are_estimated_under_the_same_threads(onnx_file):
    entry = _entry()
    baselines = SimpleNamespace(student=onnx_file, teacher=None)
    estimate_deployed(entry, onnx_file, baselines, _recipe(threads=[1, 4]), BOARD)
    assert [row["threads"] for row in entry["latency"]] == [1, 4]
    assert [row["p50_ms"] for row in entry["baseline"]["latency"]] == [
        row["p50_ms"] for row in entry["latency"]
    ]
    assert "operators" not in entry["latency"][0]
    assert any("estimated, not measured" in text for text in entry["warnings"])


def test_a_file_that_is_slower_by_estimate_is_called_so(onnx_file, monkeypatch):
    import edgekd.deploy_estimate as room

    real = room.estimate

    def slower_when_deployed(path, spec, **options):
        found = real(onnx_file, spec, **options)
        if path.name == "deployed.onnx":
            found = type(found)(
                **{**{k: v for k, v in vars(found).items() if k != "kind"}, "p50_ms": 2 * found.p50_ms}
            )
        return found

    monkeypatch.setattr(room, "estimate", slower_when_deployed)
    for quantized, said in ((True, True), (False, False)):
        entry = _entry(quantized=quantized)
        baselines = SimpleNamespace(student=Path("fp32.onnx"), teacher=None)
        estimate_deployed(entry, Path("deployed.onnx"), baselines, _recipe(), BOARD)
        assert (
            any("SLOWER, by estimate" in text and "2.00 times" in text for text in entry["warnings"]) is said
        )


def test_a_file_that_cannot_be_priced_costs_a_warning_not_the_run(tmp_path):
    broken = tmp_path / "m.onnx"
    broken.write_bytes(b"not a model")
    entry = _entry()
    estimate_deployed(entry, broken, SimpleNamespace(student=broken, teacher=None), _recipe(), BOARD)
    assert entry["latency"] == [] and "neither measured nor estimated" in entry["warnings"][0]


@pytest.mark.parametrize(
    ("kind", "low_ms", "p50_ms", "misses"),
    [
        ("measured", 8, 12, True),
        ("measured", 8, 9, False),
        ("estimated", 8, 12, False),
        ("estimated", 11, 12, True),
    ],
)
def test_an_estimate_misses_a_limit_when_its_whole_range_does(tmp_path, kind, low_ms, p50_ms, misses):
    row = LatencyFacts(
        kind=kind, device="d", runtime="r", threads=1, p50_ms=p50_ms, low_ms=low_ms, high_ms=20
    )
    deployed = SimpleNamespace(device="d", metrics=Metrics(top1=0.9), latency=[row])
    report = SimpleNamespace(stages=[], deploy=[deployed])
    limits = LimitsRecipe(max_latency_ms=10)
    if not misses:
        check_limits(report, limits, tmp_path)
        return
    with pytest.raises(EdgeKDError, match="slower than the recipe allows") as refused:
        check_limits(report, limits, tmp_path)
    assert ("estimated, at least 11.000 ms" in str(refused.value)) is (kind == "estimated")
