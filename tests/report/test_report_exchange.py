"""An offer of other activations stands among the sentences of every way of drawing a report."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from edgekd.report import Report, render_html, render_markdown
from edgekd.report.console import console_report
from edgekd.report.verdict import verdicts

OFFER = {
    "activations": {"gelu": 12, "silu": 2}, "instead": "relu", "kind": "measured", "deployed_ms": 3.4,
    "exchanged_ms": 2.125, "speedup": 1.6, "interval": [1.55, 1.65], "threads": 1,
    "setting": "--set distill.substitute=relu",
}  # fmt: skip


@pytest.fixture
def report(document: dict[str, Any]) -> Report:
    document["deploy"][0]["exchange"] = OFFER
    return Report.model_validate(document)


def test_every_drawing_tells_it(report: Report) -> None:
    console = Console(width=400, record=True, file=io.StringIO())
    console.print(console_report(report))
    for text in (render_html(report), render_markdown(report), console.export_text()):
        assert "GELU (12) and SiLU (2) cost time" in text and "distill.substitute=relu" in text
        assert "2.12 ms" in text and "3.40 ms" in text and "measured" in text


def test_it_is_a_note_and_only_where_there_is_one(report: Report, document: dict[str, Any]) -> None:
    told = [verdict for verdict in verdicts(report) if "substitute" in verdict.text]
    assert [verdict.level for verdict in told] == ["note"]
    document["deploy"][0].pop("exchange")
    assert not any("substitute" in v.text for v in verdicts(Report.model_validate(document)))
