"""With several labels a text there is no top-1: every picture and table says micro F1."""

from __future__ import annotations

from typing import Any

import pytest

from edgekd.report import Report
from edgekd.report.compare import compare_reports, comparison_table
from edgekd.report.pictures import latency_picture, size_picture


@pytest.fixture
def several(sample: Report) -> Report:
    document: dict[str, Any] = sample.model_dump(mode="json", by_alias=True)
    for each in document["stages"] + document["deploy"]:
        metrics = each["metrics"]
        metrics["f1_micro"], metrics["top1"] = metrics["top1"], None
    return Report.model_validate(document)


def test_pictures_name_the_score(sample: Report, several: Report) -> None:
    for draw in (size_picture, lambda report: latency_picture(report, report.deploy[0])):
        assert "top-1 accuracy" in str(draw(sample)) and "micro F1" not in str(draw(sample))
        assert "micro F1" in str(draw(several)) and "top-1" not in str(draw(several))


def test_runs_side_by_side_name_the_score(sample: Report, several: Report) -> None:
    def heads(*reports: Report) -> list[str]:
        found = comparison_table(compare_reports([(str(k), report) for k, report in enumerate(reports)]))
        return [column.name for column in found.columns]

    assert "top-1" in heads(sample, sample)
    assert "micro F1" in heads(several, several) and "top-1" not in heads(several, several)
    assert "accuracy" in heads(sample, several)
