"""By default a run measures integers against a mix and float, and the report tells what it chose and why."""

from __future__ import annotations

import json
from hashlib import sha256


def test_one_of_the_measured_files_goes_out(edgekd, recipe, tmp_path):
    out = tmp_path / "out"
    done = edgekd("compress", recipe(export={"choose": "fastest"}), "--out", out)
    assert done.code == 0, done.err
    (entry,) = json.loads((out / "report.json").read_text())["deploy"]
    rows = {row["name"]: row for row in entry["variants"]}
    assert {"int8", "fp32"} <= rows.keys() <= {"int8", "mixed", "fp32"}
    (chosen,) = [row for row in rows.values() if row["deployed"]]
    file = out / entry["file"]
    assert file.stat().st_size == chosen["size_bytes"] == entry["size_bytes"]
    assert sha256(file.read_bytes()).hexdigest() == entry["sha256"]
    assert (entry["quantization"] is None) == (chosen["name"] == "fp32")
    assert (
        entry["sparsity"]["violations"] == 0 and entry["parity"]["agreement"] > 0.95
    )  # hardly trained: ties
    assert rows["int8"]["size_bytes"] < rows["fp32"]["size_bytes"]
    assert all(row["p50_ms"] > 0 and 0 < row["validation_score"] <= 1 for row in rows.values())
    left = sorted(path.name for path in file.parent.iterdir())
    assert not any("tmp" in name or name.startswith(".") for name in left)
    page = (out / "report.html").read_text()
    assert "Measured before one was deployed" in page


def test_for_a_board_the_choice_is_estimated_and_says_so(edgekd, recipe, tmp_path):
    out = tmp_path / "out"
    chosen = recipe(export={"choose": "fastest"}, devices=["raspberry-pi-4b"])
    done = edgekd("compress", chosen, "--out", out)
    assert done.code == 0, done.err
    (entry,) = json.loads((out / "report.json").read_text())["deploy"]
    assert {"int8", "fp32"} <= {row["name"] for row in entry["variants"]}
    assert {row["kind"] for row in entry["variants"]} == {"estimated"}
    (row,) = [row for row in entry["variants"] if row["deployed"]]
    assert row["p50_ms"] == min(each["p50_ms"] for each in entry["variants"]) == entry["latency"][0]["p50_ms"]
    assert (
        sorted(path.name for path in (out / entry["file"]).parent.iterdir() if path.name.startswith("."))
        == []
    )
    page = (out / "report.html").read_text()
    assert "Estimated before one was deployed" in page and "Measured before" not in page
