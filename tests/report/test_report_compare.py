from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edgekd.errors import UserInputError
from edgekd.report import Report
from edgekd.report.compare import compare_reports, compare_runs, comparison_table
from edgekd.report.console import console_comparison
from edgekd.report.format import MISSING


def _run(path: Path, document: dict[str, Any]) -> Path:
    path.mkdir(parents=True)
    (path / "report.json").write_text(json.dumps(document), encoding="utf-8")
    return path


def test_two_runs_side_by_side(document: dict[str, Any], tmp_path: Path) -> None:
    document["deploy"] = document["deploy"][:1]
    other = copy.deepcopy(document)
    other["deploy"][0]["metrics"]["top1"] = 0.9301
    other["deploy"][0]["size_bytes"] = 120_000
    comparison = compare_runs(
        [_run(tmp_path / "first", document), _run(tmp_path / "second", other) / "report.json"]
    )
    assert [(file.run, file.top1, file.size_bytes) for file in comparison.files] == [
        ("first", 0.9259, 147812),
        ("second", 0.9301, 120_000),
    ]
    assert comparison.files[1].accuracy_change == pytest.approx(-0.008)
    assert comparison.warnings == []
    as_json = json.loads(json.dumps(comparison.as_json()))
    assert as_json["schema"] == 1
    assert as_json["files"][0]["speedup_vs_teacher"] == 13.1487
    assert comparison_table(comparison).rows[1][:7] == (
        "second",
        "cpu",
        "demo (fixture)",
        MISSING,
        "93.01%",
        "−0.80",
        "95.17%",
    )
    stream = io.StringIO()
    Console(file=stream, width=80).print(console_comparison(comparison))
    for fact in ("first", "second", "92.59%", "93.01%", "120 kB", "13.15×"):
        assert fact in stream.getvalue()


def test_what_must_not_be_compared_is_said(document: dict[str, Any]) -> None:
    other = copy.deepcopy(document)
    other["data"]["fingerprint"] = "other"
    other["machine"]["cpu"] = "another processor"
    other["deploy"][0]["latency"] = [other["deploy"][0]["latency"][1]]
    other["deploy"][0]["latency"][0]["kind"] = "estimated"
    runs = [("a", Report.model_validate(document)), ("b", Report.model_validate(other))]
    assert compare_reports(runs).warnings == [
        "the runs differ in test data: their accuracies are not comparable",
        "the runs differ in processors: their latencies are not comparable",
        "cpu: the latencies differ in kind (estimated and measured)",
        "cpu: the latencies differ in threads (1 and 2)",
    ]


def test_missing_speedup_is_derived_from_like_with_like_only(document: dict[str, Any]) -> None:
    entry = document["deploy"][0]
    entry["speedup_vs_student_fp32"] = entry["speedup_vs_teacher"] = None
    entry["baseline"]["teacher"]["latency"] = entry["baseline"]["teacher"]["latency"][1:]
    file = compare_reports([("a", Report.model_validate(document))]).files[0]
    assert file.speedup_vs_student_fp32 == pytest.approx(0.7418 / 0.3121)
    # The teacher has only a row with two threads, the deployed file's is with one.
    assert file.speedup_vs_teacher is None


def test_a_run_without_files_and_equal_names(document: dict[str, Any], tmp_path: Path) -> None:
    paths = [_run(tmp_path / "x" / "out", document), _run(tmp_path / "y" / "out", document | {"deploy": []})]
    comparison = compare_runs(paths)
    assert len({file.run for file in comparison.files}) == 2
    assert comparison.files[-1].device is None
    assert any("no file was deployed" in text for text in comparison.warnings)


def test_a_folder_without_report_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match=r"report\.json"):
        compare_runs([tmp_path])


def test_a_measurement_stands_before_an_estimate(document: dict[str, Any]) -> None:
    document["deploy"][0]["latency"][0] |= {"kind": "estimated"}
    file = compare_reports([("a", Report.model_validate(document))]).files[0]
    assert (file.latency_kind, file.threads, file.p50_ms) == ("measured", 2, 0.2217)
