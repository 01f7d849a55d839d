"""The tables of single layers, and the method in a comparison."""

from __future__ import annotations

import copy
from typing import Any

from edgekd.report import Report
from edgekd.report.compare import compare_reports, comparison_table
from edgekd.report.format import MISSING
from edgekd.report.html import render_html
from edgekd.report.layers import zero_share_table
from edgekd.report.markdown import render_markdown

KEPT = {
    "name": "blocks.0.conv_dw",
    "reason": "quantized alone it moves the answers",
    "kl": 0.125,
    "macs_share": 0.031,
}


def quantized(document: dict[str, Any], **facts: Any) -> Report:
    document = copy.deepcopy(document)
    document["stages"][-1]["quantization"] = facts
    return Report.model_validate(document)


def test_layers_in_float_and_lost_activations_are_told(document: dict[str, Any]) -> None:
    shares = {f"layer{k}": k / 100 for k in range(20)}
    report = quantized(document, method="ptq", kept_float=[KEPT], zero_shares=shares)
    for text in (render_html(report), render_markdown(report)):
        for fact in ("blocks.0.conv_dw", "0.125", "3.1%", "layer19", "19.00%"):
            assert fact in text, fact
        assert "layer4<" not in text and "| layer4 |" not in text
    table = zero_share_table(report)
    assert [row[0] for row in table.rows][:2] == ["layer19", "layer18"] and "15 highest of 20" in table.title


def test_a_run_without_them_has_no_empty_tables(document: dict[str, Any]) -> None:
    report = Report.model_validate(document)
    assert "rounded to zero" not in render_html(report) + render_markdown(report)


def test_ptq_smoothquant_and_qat_stand_side_by_side(document: dict[str, Any]) -> None:
    runs = [
        ("a", quantized(document, method="ptq")),
        ("b", quantized(document, method="ptq", smooth="auto")),
        ("c", quantized(document, method="qat")),
        ("d", Report.model_validate(document)),
    ]
    comparison = compare_reports(runs)
    column = [column.name for column in comparison_table(comparison).columns].index("method")
    rows = {row[0]: row[column] for row in comparison_table(comparison).rows}
    assert rows == {"a": "PTQ", "b": "PTQ, SmoothQuant auto", "c": "QAT", "d": MISSING}
    assert comparison.as_json()["files"][0]["method"] == "PTQ"
