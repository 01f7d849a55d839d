from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd.errors import UserInputError
from edgekd.report import Report, load_report, write_report

DESIGN_KEYS = {"schema", "recipe", "task", "data", "versions", "torch_device", "seconds", "stages", "deploy"}


def test_round_trip_keeps_everything(document: dict[str, Any], tmp_path: Path) -> None:
    document["a_later_key"] = {"kept": [1, 2]}
    document["deploy"][0]["quantization"]["later"] = "kept too"
    report = Report.model_validate(document)
    write_report(report, tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert load_report(tmp_path) == report
    # A reason given as one text comes back as name and reason; nothing else changes.
    document["deploy"][1]["sparsity"]["skipped"] = [
        {"name": "stem.conv", "reason": "3 input channels are not a multiple of 4"}
    ]
    assert _subset(document, written) == []
    assert written.keys() >= DESIGN_KEYS


def _subset(wanted: Any, got: Any, where: str = "") -> list[str]:
    """Paths at which ``got`` lacks what ``wanted`` has."""
    if isinstance(wanted, dict):
        return [
            bad for key, value in wanted.items() for bad in _subset(value, got.get(key), f"{where}.{key}")
        ]
    if isinstance(wanted, list):
        pairs = zip(wanted, got, strict=True)
        return [bad for index, (a, b) in enumerate(pairs) for bad in _subset(a, b, f"{where}[{index}]")]
    return [] if wanted == got else [where]


def _drop(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda document: document.pop(key)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (_drop("stages"), "stages: is missing"),
        (lambda d: d["deploy"][0].pop("size_bytes"), "deploy[0].size_bytes: is missing"),
        (lambda d: d["stages"][2]["metrics"].update(top1=93.04), "stages[2].metrics.top1"),
        (lambda d: d["deploy"][1]["latency"][0].update(kind="guessed"), "deploy[1].latency[0].kind"),
        (lambda d: d["deploy"][0]["latency"][0].update(p50_ms=float("nan")), "deploy[0].latency[0].p50_ms"),
        (lambda d: d["deploy"][0]["sparsity"].update(violations=-1), "deploy[0].sparsity.violations"),
        (lambda d: d.update(schema=2), "schema 1"),
        (lambda d: d["stages"][2]["metrics"].update(nll=float("inf")), "stages[2].metrics.nll"),
        (_drop("schema"), "schema 1"),
    ],
)
def test_broken_report_is_one_line(
    document: dict[str, Any], tmp_path: Path, damage: Callable[[dict[str, Any]], Any], named: str
) -> None:
    damage(document)
    file = tmp_path / "report.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(UserInputError) as caught:
        load_report(file)
    assert named in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("content", ["", '{"schema": 1', "[1]", "\x00\xff"])
def test_what_is_not_a_report_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserInputError, match=r"report\.json"):
        load_report(tmp_path)


def test_missing_report_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="give a run's folder"):
        load_report(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserInputError, match="the run has not finished"):
        load_report(tmp_path)


def test_null_numbers_are_kept_null(label_free: dict[str, Any], tmp_path: Path) -> None:
    write_report(Report.model_validate(label_free), tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert written["stages"][0]["metrics"]["top1"] is None
    assert written["deploy"][0]["metrics"]["agreement"] == 0.9517


def test_the_profilers_node_is_an_operators_name(document: dict[str, Any], tmp_path: Path) -> None:
    document["deploy"][0]["operators"] = [{"node": "conv1", "op_type": "Conv", "mean_us": 1.5, "share": 0.5}]
    write_report(Report.model_validate(document), tmp_path / "report.json")
    assert load_report(tmp_path).deploy[0].operators[0].name == "conv1"
    assert '"name": "conv1"' in (tmp_path / "report.json").read_text(encoding="utf-8")
