from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from edgekd.report import Report, render_markdown
from edgekd.report.console import console_report
from edgekd.report.evidence import guarantees_table, origin_table, skipped_table
from edgekd.report.facts import all_warnings
from edgekd.report.format import (
    byte_count,
    clean,
    duration,
    milliseconds,
    percent,
    points,
    quantity,
    ratio,
)
from edgekd.report.headline import model_name
from edgekd.report.markdown import escape_markdown
from edgekd.report.tables import deploy_table, files_table, latency_table, operators_table, stages_table
from edgekd.report.verdict import verdicts


def _printed(report: Report, width: int = 80) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=False).print(console_report(report))
    return stream.getvalue()


def test_markdown_holds_every_fact(sample: Report) -> None:
    text = render_markdown(sample)
    assert "\nRaspberry Pi 4 Model B:\n\n- Accuracy, top-1: **92.58%**" in text
    tables = [stages_table(sample), deploy_table(sample), guarantees_table(sample), skipped_table(sample)]
    tables.append(origin_table(sample))
    for entry in sample.deploy:
        tables += [latency_table(sample, entry), files_table(sample, entry), operators_table(entry)]
    for table in tables:
        for row in table.rows:
            assert "| " + " | ".join(map(escape_markdown, row)) + " |" in text
    for sentence in [verdict.text for verdict in verdicts(sample)] + all_warnings(sample):
        assert escape_markdown(sentence) in text


def test_markdown_numbers_are_those_of_the_json(sample: Report) -> None:
    """Read the stage table back and compare it with the report itself."""
    lines = [line for line in render_markdown(sample).splitlines() if line.startswith("| ")]
    rows = {cells[0]: cells for line in lines if len(cells := line.strip("| ").split(" | ")) == 9}
    for stage in sample.stages:
        cells = rows[stage.name]
        assert float(cells[1].rstrip("%")) / 100 == pytest.approx(stage.metrics.top1, abs=5e-5)
        assert float(cells[3]) == pytest.approx(stage.metrics.ece, abs=5e-5)
        assert int(cells[6].replace(",", "")) == stage.nonzero_params


def test_markdown_cannot_be_broken_by_a_name(document: dict[str, Any]) -> None:
    document["stages"][2]["name"] = "a|b\n# <img src=x> `code` [link](http://x)"
    text = render_markdown(Report.model_validate(document))
    assert "a\\|b # &lt;img src=x&gt; \\`code\\` \\[link\\](http://x)" in text
    assert "<img" not in text
    assert "\n# <" not in text


def test_console_shows_the_tables_and_the_warnings(sample: Report) -> None:
    text = " ".join(_printed(sample).split())
    for stage in sample.stages:
        assert f"{stage.name} {percent(stage.metrics.top1)}" in text
    for fact in ("148 kB", "0.312 ms", "~5.90 ms", "estimated", "2.38×", "0.88×", "99.87%", "90.91%"):
        assert fact in text
    assert "SLOWER than its fp32 baseline" in text
    for warning in all_warnings(sample):
        assert warning in text
    assert max(map(len, _printed(sample).splitlines())) <= 80


def test_console_shows_markup_and_control_characters_as_text(document: dict[str, Any]) -> None:
    document["stages"][2]["name"] = "[red]x[/red]\x1b[31m"
    text = _printed(Report.model_validate(document), width=200)
    assert text.count("[red]x[/red]\ufffd[31m") == 2  # in the sentence under the title, and in the table
    assert "\x1b" not in text


def test_label_free_text(label_free: dict[str, Any]) -> None:
    report = Report.model_validate(label_free)
    text = render_markdown(report)
    assert "No labels were read" in text
    assert re.search(r"\| distill \| – \| 95\.71% \| – \| – \|", text)
    assert "95.17%" in _printed(report)


def test_a_file_that_was_not_evaluated_has_no_score_of_its_own(sample: Report) -> None:
    deployed, student, teacher = files_table(sample, sample.deploy[0]).rows
    assert deployed[3:5] == ("92.59%", "95.17%")
    assert student[3:7] == ("–", "–", "–", "–")
    assert teacher[3] == "93.81%"


def test_worst_verdict_first(sample: Report) -> None:
    levels = [verdict.level for verdict in verdicts(sample)]
    order = ["bad", "warn", "good", "note"]
    assert levels == sorted(levels, key=order.index)
    assert {"bad", "warn", "good"} <= set(levels)


def test_a_teacher_at_chance_is_told_before_what_it_bought(document: dict[str, Any]) -> None:
    (teacher,) = [stage for stage in document["stages"] if stage["name"] == "teacher"]
    document["data"] |= {"test": 40, "commonest": 0.1}
    teacher["metrics"]["top1"] = 0.125
    first = next(verdict for verdict in verdicts(Report.model_validate(document)) if verdict.level == "warn")
    assert first.text.startswith("The teacher is no better than always") and "12.50%" in first.text
    for change in ({"metrics": {"top1": 0.9}}, {}):
        other = {**document, "stages": [{**stage, **change} for stage in document["stages"]]}
        if not change:  # random weights: what they answer means nothing, and another line says so
            other["models"] = {"teacher": "timm:resnet18@random"}
        assert not any("no better" in verdict.text for verdict in verdicts(Report.model_validate(other)))


def test_broken_pattern_is_a_bad_verdict(document: dict[str, Any]) -> None:
    document["deploy"][0]["sparsity"]["violations"] = 3
    found = verdicts(Report.model_validate(document))
    assert any(v.level == "bad" and "3 groups of weights in the file break 2:4" in v.text for v in found)
    assert not any("This computer" in v.text and "2:4 holds" in v.text for v in found)


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        (percent(0.99996), ">99.99%"),
        (percent(1.0), "100%"),
        (percent(0.00001), "<0.01%"),
        (percent(0.0), "0.00%"),
        (percent(None), "–"),
        (ratio(0.999), "<1.00×"),
        (ratio(0.8814), "0.88×"),
        (ratio(13.149), "13.15×"),
        (points(-0.0122), "−1.22"),
        (points(0.00001), "±0.00"),
        (milliseconds(0.3121), "0.312 ms"),
        (milliseconds(5.9, "estimated"), "~5.90 ms"),
        (byte_count(147812), "148 kB"),
        (byte_count(999_600), "1.00 MB"),
        (byte_count(999), "999 B"),
        (quantity(94410), "94,410"),
        (quantity(118_400_000), "118 M"),
        (duration(59.96), "1 min 00 s"),
        (duration(7500), "2 h 05 min"),
        (clean("a\nb\tc\x1b[0m\u202e"), "a b c\ufffd[0m\ufffd"),
    ],
)
def test_numbers_as_text(got: str, wanted: str) -> None:
    assert got == wanted


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("timm:resnet18@a/b.pt", "resnet18"),
        ("torch:a/b.py:f", "b.py:f"),
        ("runs/flowers/stages/02-distill", "flowers"),
        ("same?layers=3&vocabulary=task", "same (layers=3, vocabulary=task)"),
        ("models/bert/", "bert"),
    ],
)
def test_a_model_is_called_what_a_reader_calls_it(spec: str, said: str) -> None:
    assert model_name(spec) == said
