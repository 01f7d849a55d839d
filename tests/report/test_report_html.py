from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from edgekd.report import Report, render_html, render_run
from edgekd.report.evidence import guarantees_table, origin_table, skipped_table
from edgekd.report.facts import all_warnings
from edgekd.report.markup import escape
from edgekd.report.tables import files_table, latency_table, stages_table

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\x00'


class _Page(HTMLParser):
    """Every start tag with its attributes; fails on tags that are not closed in order."""

    VOID = frozenset({"meta", "circle", "line", "rect", "path", "polyline"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID or (tag == "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_nothing_is_fetched(sample: Report) -> None:
    page = render_html(sample, recipe_yaml="name: demo\n")
    for name, attributes in _Page(page).tags:
        assert name not in {"script", "link", "iframe", "img", "object", "base", "form", "image", "use", "a"}
        assert not {"src", "href", "xlink:href", "srcset", "action"} & attributes.keys()
        assert not [key for key in attributes if key.startswith("on")]
    assert not re.search(r"url\(|@import|https?:", page)


def test_it_fits_a_phone_and_the_dark(sample: Report) -> None:
    page = render_html(sample)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert "prefers-color-scheme: dark" in page
    assert "max-width: 700px" in page
    assert page.count('<div class="scroll"') == page.count("<table>") > 5


def test_every_fact_is_on_the_page(sample: Report) -> None:
    page = render_html(sample, recipe_yaml="name: demo\nstages:\n  - distill: {epochs: 12}\n")
    tables = [stages_table(sample), guarantees_table(sample), skipped_table(sample), origin_table(sample)]
    for entry in sample.deploy:
        tables += [latency_table(sample, entry), files_table(sample, entry)]
        for operator in entry.operators:
            assert operator.name in page
            assert operator.op_type in page
    cells = {cell for table in tables for row in table.rows for cell in row}
    assert {
        "93.04%",
        "0.0201",
        "47,930",
        "9.87 M",
        "148 kB",
        "0.312",
        "~5.90",
        "90.91% (10 of 11 convolutions and linears)",
    } <= cells
    for text in cells | set(all_warnings(sample)):
        assert escape(text) in page
    for stage in sample.stages:
        assert f'<td class="col-text">{stage.name}</td>' in page
    assert "  - distill: {epochs: 12}" in page
    assert "kept magnitude 81.23% before and 83.46% after channel permutation" in page


def test_pictures_are_well_formed_svg(sample: Report) -> None:
    pictures = re.findall(r"<svg .*?</svg>", render_html(sample), flags=re.DOTALL)
    # One of sizes, one of latency a device, three curves, one latency chart a device.
    assert len(pictures) == 8
    for picture in pictures:
        root = ET.fromstring(picture)
        assert root.get("viewBox")
        assert root.find("title") is not None
        for node in root.iter():
            for key in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height"):
                assert float(node.get(key, "0")) == pytest.approx(float(node.get(key, "0")))


def test_estimates_look_like_estimates(sample: Report) -> None:
    page = render_html(sample)
    assert '<span class="tag estimated">estimated</span></div><div class="tile-value">~5.90 ms</div>' in page
    assert '<span class="tag measured">measured</span></div><div class="tile-value">0.312 ms</div>' in page
    assert re.search(r'class="bar deployed estimated"', page)
    # Every occurrence of an estimated number carries its mark.
    for number in ("5.90", "5.20", "48.3"):
        assert re.findall(rf"(?<![\d.]){re.escape(number)}\b", page)
        assert not re.search(rf"(?<![~\d.]){re.escape(number)}\b", page)


def test_slower_than_its_baseline_is_said_loudly(sample: Report, document: dict[str, Any]) -> None:
    page = render_html(sample)
    first = page[page.index('<ul class="verdicts">') :]
    assert first.startswith('<ul class="verdicts"><li class="bad">')
    assert "SLOWER than its fp32 baseline: 0.88× the speed of the same student in fp32" in first
    assert '<div class="tile bad">' in page
    document["deploy"] = document["deploy"][:1]
    assert "SLOWER" not in render_html(Report.model_validate(document))


def test_hostile_names_are_text(document: dict[str, Any]) -> None:
    def poison(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: poison(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [poison(inner) for inner in value]
        kept = value in ("measured", "emulated", "estimated")
        return value + HOSTILE if isinstance(value, str) and not kept else value

    poisoned = poison(document)
    poisoned["versions"][HOSTILE] = poisoned["data"]["provenance"][HOSTILE] = "1"
    page = render_html(Report.model_validate(poisoned), recipe_yaml=HOSTILE)
    names = {name for name, _ in _Page(page).tags}
    assert not names & {"script", "img"}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not re.search("[\x00-\x08\x0b-\x1f]", page)
    for picture in re.findall(r"<svg .*?</svg>", page, flags=re.DOTALL):
        ET.fromstring(picture)


def test_label_free_run(label_free: dict[str, Any]) -> None:
    page = render_html(Report.model_validate(label_free))
    assert "No labels were read" in page
    assert "Agreement" in page
    assert "95.17%" in page
    assert "agreement with the teacher" in page
    assert "validation agreement" in page
    assert "92.59%" not in page
    assert "points of accuracy" not in page


@pytest.mark.parametrize("left", ["latency", "baseline", "operators", "sparsity", "quantization", "parity"])
def test_what_was_not_made_is_left_out(document: dict[str, Any], left: str) -> None:
    for entry in document["deploy"]:
        entry[left] = [] if isinstance(entry[left], list) else None
        if left in ("latency", "baseline"):
            entry["speedup_vs_student_fp32"] = entry["speedup_vs_teacher"] = None
    page = render_html(Report.model_validate(document))
    _Page(page)
    assert ("None" in page) is False
    if left == "latency":
        assert "neither measured nor estimated" in page
        assert "SLOWER" not in page


def test_a_run_that_deployed_nothing(document: dict[str, Any]) -> None:
    document["deploy"] = []
    page = render_html(Report.model_validate(document))
    assert "No file was deployed" in page
    assert "93.04%" in page


def test_render_run_writes_both_files(document: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(document), encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text("name: of-this-run\n", encoding="utf-8")
    page, text = render_run(tmp_path)
    assert "name: of-this-run" in page.read_text(encoding="utf-8")
    assert "93.04%" in text.read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "recipe.yaml", "report.html", "report.json", "report.md",
    ]  # fmt: skip


def test_only_the_slowest_operators_are_shown(document: dict[str, Any]) -> None:
    entry = document["deploy"][0]
    entry["operators"] = [
        {"name": f"node{i:03d}", "op_type": "Conv", "mean_us": float(i), "share": None} for i in range(200)
    ]
    page = render_html(Report.model_validate(document))
    assert re.findall(r"node\d+", page) == [f"node{i:03d}" for i in range(199, 187, -1)]
