from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgekd.report import Report

SAMPLE = Path(__file__).parent / "sample_report.json"


@pytest.fixture
def document() -> dict[str, Any]:
    """Invented numbers with the shape of a real run: two devices, one of them only estimated."""
    return json.loads(SAMPLE.read_text(encoding="utf-8"))


@pytest.fixture
def sample(document: dict[str, Any]) -> Report:
    return Report.model_validate(document)


@pytest.fixture
def label_free(document: dict[str, Any]) -> dict[str, Any]:
    """The same run without labels: no accuracy, no calibration error, anywhere."""
    holders = [*document["stages"], *document["deploy"]]
    holders += [entry["baseline"][key] for entry in document["deploy"] for key in ("teacher",)]
    holders += [entry["baseline"] for entry in document["deploy"]]
    for holder in holders:
        if holder["metrics"] is not None:
            holder["metrics"] |= {"top1": None, "ece": None, "nll": None}
    for stage in document["stages"]:
        for epoch in stage["history"]:
            epoch |= {"val_agreement": epoch["val_top1"], "val_top1": None}
    return document
