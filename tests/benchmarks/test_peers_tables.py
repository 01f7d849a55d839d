"""The catalogue is whole, and tables and picture say what the rows say."""

from __future__ import annotations

import io
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from benchmarks.peers.catalogue import SCRIPTS, read_catalogue
from benchmarks.peers.environment import OWN
from benchmarks.peers.plot import speed_picture
from benchmarks.peers.row import Row, Speed
from benchmarks.peers.run import main
from benchmarks.peers.summary import markdown_summary, versus
from benchmarks.peers.table import markdown_table, ordered, rich_table
from edgekd.errors import UserInputError

ROOT = Path(__file__).resolve().parents[2]
SPEED = Speed(value=2.0, low=1.9, high=2.1)
ROWS = [
    Row(model="net", peer="slow", title="Slow|One", version="1.0", fp32_p50_ms=20.0, p50_ms=15.0, agreement=0.5,
        speedup=SPEED, edgekd_speedup=SPEED, integer_ops=3, float_ops=1, violations=2, size_bytes=2_000_000),
    Row(model="net", peer="edgekd", title="edgekd", fp32_p50_ms=20.0, p50_ms=10.0, agreement=0.995, speedup=SPEED,
        violations=0),
    Row(model="net", peer="ov", title="Other", runtime="openvino", p50_ms=5.0, fp32_p50_ms=20.0, speedup=SPEED),
    Row(model="net", peer="gone", title="Gone", version="3.1").failed("failed", "it [cannot] run"),
]  # fmt: skip


def test_every_peer_of_the_issue_is_there_once() -> None:
    catalogue = read_catalogue()
    packages = {peer.package for peer in catalogue.peers.values()}
    assert packages >= {
        "edgekd",
        "onnxruntime",
        "neural-compressor",
        "nncf",
        "nvidia-modelopt",
        "torchao",
        "torch",
    }
    assert packages >= {"aimet-onnx", "fasterai", "olive-ai"}
    used = {script for peer in catalogue.peers.values() for script in (peer.script, peer.worker) if script}
    assert used | {"job_io", "torch_model"} == {path.stem for path in SCRIPTS.glob("*.py")}
    assert {peer.environment for peer in catalogue.peers.values()} - {OWN} == set(catalogue.environments)


def test_every_requirement_has_its_exact_version() -> None:
    catalogue = read_catalogue()
    pinned = {line.split("==")[0] for line in catalogue.constraints}
    for name, steps in catalogue.environments.items():
        for requirement in (requirement for step in steps for requirement in step):
            assert "==" in requirement or requirement in pinned, f"{name}: {requirement}"


def test_an_unknown_peer_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserInputError, match="did you mean 'olive'"):
        read_catalogue().choose("edgekd,olve")
    assert main(["--peers", "olve"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_list_names_every_peer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(read_catalogue().peers)


def test_the_fastest_stands_first_and_failures_last() -> None:
    assert [row.peer for row in ordered(ROWS)] == ["ov", "edgekd", "slow", "gone"]


def test_markdown_says_numbers_reasons_and_other_runtimes() -> None:
    text = markdown_table("net", ROWS)
    slow = next(line for line in text.splitlines() if "Slow" in line)
    assert "Slow\\|One" in slow and "| 50.0 % |" in slow and "2.00x (1.90–2.10)" in slow
    assert "| 3/4 | 2 bad |" in slow and "| 2.00 |" in slow
    assert "Other [other runtime]" in text and "fp32 20.00 ms" in text
    assert "- Gone 3.1: failed: it [cannot] run" in text
    assert "| holds |" in next(line for line in text.splitlines() if "| edgekd |" in line)
    assert len({line.count(" | ") for line in text.splitlines() if line.startswith("| ")}) == 1


def test_the_terminal_shows_brackets_as_they_are() -> None:
    console = Console(file=io.StringIO(), width=200)
    console.print(rich_table("net", ROWS))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "Other [other runtime]" in shown and "Gone: it [cannot] run" in shown


def test_the_picture_is_one_svg_with_a_bar_a_measured_file() -> None:
    picture = speed_picture([ROWS[0].model_copy(update={"title": "<Slow>"}), *ROWS[1:]])
    assert picture is not None
    root = ElementTree.fromstring(picture)
    bars = [each for each in root.iter() if each.tag.endswith("rect")]
    assert len(bars) == 3 and sum("foreign" in bar.attrib["class"] for bar in bars) == 1
    assert "<Slow>" in {each.text for each in root.iter() if each.text}
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "")
    assert speed_picture([ROWS[3]]) is None


def test_benchmarks_stay_out_of_the_wheel() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert not [name for name in document["tool"]["setuptools"]["packages"] if "benchmarks" in name]


def _of(model: str, peer: str, agreement: float, over_edgekd: float | None, **more: object) -> Row:
    speed = None if over_edgekd is None else Speed(value=over_edgekd, low=over_edgekd, high=over_edgekd)
    return Row.model_validate(
        {"model": model, "peer": peer, "title": peer, "p50_ms": 1.0, "agreement": agreement,
         "edgekd_speedup": speed, **more}
    )  # fmt: skip


def test_the_summary_holds_edgekd_against_the_fastest_peer_of_each_model() -> None:
    rows = [
        _of("a", "edgekd", 0.9, None), _of("a", "quick", 0.8, 2.0), _of("a", "near", 1.0, 4.0),
        _of("a", "elsewhere", 1.0, 0.5, runtime="openvino"),
        _of("b", "edgekd", 0.9, None), _of("b", "quick", 0.95, 0.5),
        _of("alone", "edgekd", 0.9, None), _of("without", "quick", 0.9, None),
    ]  # fmt: skip
    a, b = versus(rows)
    assert (a.fastest.peer, a.closest.peer, a.speedup, a.loses_more) == ("quick", "near", 2.0, False)
    assert (b.fastest.peer, b.speedup, b.loses_more) == ("quick", 0.5, True)
    text = markdown_summary(rows)
    assert "over 2 models: edgekd's file is 1.00 times" in text
    assert "Slower than it: b." in text and "by top-1: b;" in text and "sample by sample): none." in text


@pytest.mark.parametrize(("se", "named"), [(2.0, "b"), (3.0, "none")])
def test_two_standard_errors_are_more_than_luck(se: float, named: str) -> None:
    gain = {"value": -5.0, "se": se}
    text = markdown_summary([_of("b", "edgekd", 0.9, None), _of("b", "quick", 0.95, 2.0, edgekd_gain=gain)])
    assert f"| -5.0 ± {se} |" in text and f"sample by sample): {named}." in text


def test_nothing_to_compare_is_no_summary() -> None:
    assert markdown_summary([_of("a", "edgekd", 0.9, None)]) == ""
