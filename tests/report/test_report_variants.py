"""What was measured before one file was deployed: every way of drawing the report tells it."""

from __future__ import annotations

from typing import Any

import pytest

from edgekd.report import Report, render_html, render_markdown
from edgekd.report.evidence import float_layers_table, variants_table
from edgekd.report.facts import all_warnings, files_of
from edgekd.report.headline import tiles
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


def test_layers_of_one_block_share_a_row(tried: dict[str, Any]) -> None:
    layers = [("stem", "a"), ("blocks.0.pw", "b"), ("blocks.0.se.fc", "b"), ("blocks.1.pw", "c"),
              ("head", "d"), ("fc", "d")]  # fmt: skip
    tried["deploy"][0]["variants"][1]["float_layers"] = [{"name": n, "reason": r} for n, r in layers]
    rows = float_layers_table(Report.model_validate(tried).deploy[0]).rows
    assert rows == [("stem", "a"), ("blocks.0: pw, se.fc", "b"), ("blocks.1.pw", "c"), ("head, fc", "d")]


def test_what_a_table_or_a_verdict_tells_is_no_warning_too(tried: dict[str, Any]) -> None:
    entry = tried["deploy"][0]
    said = [
        "SLOWER: the deployed file takes 1.13 times as long",
        "blocks.0.dw stays float: 50 us in integers, 20 us in float",
        "blocks.1.dw stays float: the runtime has no kernel",
    ]
    entry["warnings"], entry["speedup_vs_student_fp32"], entry["speedup_vs_teacher"] = said, 0.88, 2.0
    found = all_warnings(Report.model_validate(tried))
    assert [text for text in found if "SLOWER" in text or "stays float" in text] == [
        f"{entry['device']}: {said[2]}"
    ]
    entry["speedup_vs_student_fp32"] = 1.1  # no verdict says it: the warning stays
    assert f"{entry['device']}: {said[0]}" in all_warnings(Report.model_validate(tried))


def test_a_mix_is_called_mixed(tried: dict[str, Any]) -> None:
    report = Report.model_validate(tried)
    assert files_of(report, report.deploy[0])[0].label.startswith("deployed mixed")


def test_slower_than_both_is_said_once_with_the_way_out(tried: dict[str, Any]) -> None:
    entry = tried["deploy"][0]
    entry["speedup_vs_student_fp32"], entry["speedup_vs_teacher"] = 0.88, 0.5
    tried["deploy"] = [entry]
    report = Report.model_validate(tried)
    (bad,) = [verdict.text for verdict in verdicts(report) if verdict.level == "bad"]
    assert "0.88× the speed of the same student in fp32 and 0.50× the speed of the teacher in fp32" in bad
    assert bad.endswith(f"For speed, ship {entry['baseline']['file']}.")
    (alarm,) = [tile.alarm for tile in tiles(report, report.deploy[0]) if tile.alarm]
    assert alarm.count("SLOWER") == 1 and "0.88×" in alarm and "0.50×" in alarm


@pytest.mark.parametrize(("top1", "level"), [(-0.03, "warn"), (-0.01, "good")])
def test_much_accuracy_lost_is_no_mere_gain(tried: dict[str, Any], top1: float, level: str) -> None:
    tried["deploy"] = tried["deploy"][:1]
    teacher = next(stage for stage in tried["stages"] if stage["name"] == "teacher")
    tried["deploy"][0]["metrics"]["top1"] = teacher["metrics"]["top1"] + top1
    found = [v.level for v in verdicts(Report.model_validate(tried)) if "points of accuracy" in v.text]
    assert found == [level]


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
    entry |= {"variants": [], "quantization": None}  # no stage quantized: the same network twice
    entry["speedup_vs_teacher"] = None
    report = Report.model_validate(tried)
    own = [v for v in verdicts(report) if "the same student in fp32" in v.text]
    assert [v.level for v in own] == ["warn"] and "no clear speed-up" in own[0].text
    latency = next(tile for tile in tiles(report, report.deploy[0]) if tile.name.startswith("Latency"))
    assert (
        latency.alarm is None and "as fast as the same student in fp32, within its rounds" in latency.details
    )


def test_attention_in_float_is_told_beside_the_coverage(document: dict[str, Any]) -> None:
    document["deploy"][0]["quantization"] |= {"float_products": 24, "mac_coverage": 0.9712}
    text = render_markdown(Report.model_validate(document))
    assert "24 products of activations in float" in text and "97.12% of convolutions" in text


def test_what_a_measurement_says_is_told_once(tried: dict[str, Any]) -> None:
    """A teacher whose fp32 file is the student's has the student's rows."""
    report = Report.model_validate(tried)
    entry = next(entry for entry in report.deploy if entry.baseline.teacher and entry.baseline.latency)
    row = entry.baseline.latency[0].model_copy(update={"warnings": ("it was hot",)})
    entry.baseline.latency[:] = [row]
    entry.baseline.teacher.latency[:] = [row.model_copy()]
    assert sum("it was hot" in line for line in all_warnings(report)) == 1
    entry.baseline.teacher.latency[:] = [row.model_copy(update={"p50_ms": 9.9})]
    assert sum("it was hot" in line for line in all_warnings(report)) == 2


@pytest.mark.parametrize(("speedup", "words"), [(1.004, "as fast as"), (1.9, "1.90× faster than")])
def test_a_hundredth_is_not_faster(tried: dict[str, Any], speedup: float, words: str) -> None:
    entry = tried["deploy"][0]
    entry["speedup_vs_teacher"], entry["speedup_vs_student_fp32"] = speedup, speedup
    tried["deploy"] = [entry]
    found = [v.text for v in verdicts(Report.model_validate(tried)) if "points of accuracy" in v.text]
    assert len(found) == 1 and words in found[0]
