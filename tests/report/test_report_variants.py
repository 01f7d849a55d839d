"""What was measured before one file was deployed: every way of drawing the report tells it."""

from __future__ import annotations

from typing import Any

import pytest

from edgekd.report import Report, render_html, render_markdown
from edgekd.report.evidence import float_layers_table, variants_table
from edgekd.report.verdict import verdicts


@pytest.fixture
def tried(document: dict[str, Any]) -> dict[str, Any]:
    entry = document["deploy"][0]
    rows = [("int8", 3.0, 0.9, 1000), ("mixed", 2.0, 1.35, 2000), ("fp32", 2.7, 1.0, 4000)]
    entry["variants"] = [
        {"name": name, "deployed": name == "mixed", "p50_ms": ms, "speedup_vs_fp32": gain, "size_bytes": size,
         "validation_score": 0.9123, "float_layers": []}
        for name, ms, gain, size in rows
    ]  # fmt: skip
    entry["variants"][1]["float_layers"] = [
        {"name": "blocks.0.dw", "reason": "50 us in integers, 20 us in float"}
    ]
    return document


def test_the_table_has_a_row_for_each_and_stresses_the_deployed_one(tried: dict[str, Any]) -> None:
    entry = Report.model_validate(tried).deploy[0]
    table = variants_table(entry)
    assert [row[0] for row in table.rows] == ["int8", "mixed", "fp32"]
    assert table.rows[1][1:] == ("2.00 ms", "1.35×", "2.00 kB", "91.23%", "1")
    assert table.emphasised == {1}
    assert float_layers_table(entry).rows == [("blocks.0.dw", "50 us in integers, 20 us in float")]


def test_page_and_markdown_name_the_layers_in_float(tried: dict[str, Any]) -> None:
    report = Report.model_validate(tried)
    for text in (render_html(report), render_markdown(report)):
        assert "blocks.0.dw" in text and "50 us in integers" in text and "2.00 ms" in text


def test_float_against_float_is_no_loss(tried: dict[str, Any]) -> None:
    entry = tried["deploy"][0]
    for row in entry["variants"]:
        row["deployed"] = row["name"] == "fp32"
    entry["speedup_vs_student_fp32"] = 0.99
    tried["deploy"] = [entry]
    for row in (*entry["latency"], *entry["baseline"]["latency"]):
        row |= {"low_ms": 0.1, "high_ms": 90.0}
    own = [v for v in verdicts(Report.model_validate(tried)) if "fp32" in v.text or "float" in v.text]
    assert any("deployed in float: integers are not faster" in v.text for v in own)
    assert not any("SLOWER" in v.text and "student" in v.text for v in own)


def test_attention_in_float_is_told_beside_the_coverage(document: dict[str, Any]) -> None:
    document["deploy"][0]["quantization"] |= {"float_products": 24, "mac_coverage": 0.9712}
    text = render_markdown(Report.model_validate(document))
    assert "24 products of activations in float" in text and "97.12% of convolutions" in text
