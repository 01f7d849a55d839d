"""A measurement that broke off goes on where it was, and says so."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest

from edgekd.errors import EdgeKDError
from edgekd.profiles import CautionKind
from edgekd.profiles.ssh.kept import KeptRounds, kept_path
from edgekd.profiles.ssh.measured import measure_on_host

ROUNDS = {"a": [[1.0, 2.0], [3.0]], "b": [[4.0]]}


def keep(path: Path, since: float = 1000.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({
        "since": since, "versions": {"a": "1.20", "b": "1.20"}, "rounds": ROUNDS, "monitor": {"a": ["x"], "b": []},
    }))  # fmt: skip


def test_whole_cycles_are_taken_up(tmp_path) -> None:
    keep(tmp_path / "k.json")
    kept = KeptRounds(tmp_path / "k.json", ["a", "b"], now=1010.0)
    assert kept.cycles == 1
    assert kept.rounds == {"a": [[1.0, 2.0]], "b": [[4.0]]}
    (caution,) = kept.cautions()
    assert caution.kind is CautionKind.RESUMED
    assert str(caution).startswith("1 round is from a measurement that began at ")


@pytest.mark.parametrize("now", [1000.0 + 24 * 3600 + 1, 999.0])
def test_rounds_of_another_day_are_not(tmp_path, now: float) -> None:
    keep(tmp_path / "k.json")
    kept = KeptRounds(tmp_path / "k.json", ["a", "b"], now=now)
    assert (kept.cycles, kept.rounds, kept.cautions()) == (0, {"a": [], "b": []}, [])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"since": "x"}', '{"since": 1000, "rounds": {"a": 3}}'])
def test_a_broken_file_is_as_none(tmp_path, text: str) -> None:
    (tmp_path / "k.json").write_text(text)
    assert KeptRounds(tmp_path / "k.json", ["a", "b"], now=1010.0).cycles == 0


def test_another_version_of_the_runtime_starts_afresh(tmp_path) -> None:
    keep(tmp_path / "k.json")
    kept = KeptRounds(tmp_path / "k.json", ["a", "b"], now=1010.0)
    kept.opened("a", "1.20")
    assert kept.cycles == 1
    kept.opened("b", "1.21")
    assert (kept.cycles, kept.rounds) == (0, {"a": [], "b": []})


def test_another_question_has_another_file(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one = kept_path({"host": "a", "files": {"m": ["00"]}})
    assert one.parent == tmp_path / "edgekd/ssh"
    assert one == kept_path({"files": {"m": ["00"]}, "host": "a"})
    assert one != kept_path({"host": "a", "files": {"m": ["01"]}})


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path) -> None:
    (tmp_path / "file").touch()
    kept = KeptRounds(tmp_path / "file" / "k.json", ["a"])
    kept.add("a", [1.0], [])
    kept.add("a", [2.0], [])
    assert kept.rounds == {"a": [[1.0], [2.0]]}
    kept.done()


def test_the_same_call_goes_on(board, make_model, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    models = {"a": make_model("a.onnx"), "b": make_model("b.onnx", size=32)}
    settings = {"rounds": 4, "runs": 5, "warmup": 0, "options": board.options}
    turns: list[str] = []

    def pull_the_plug(done: int, total: int, label: str) -> None:
        if label in models:
            turns.append(label)
            if len(turns) == 6:  # a b, b a, a: the third cycle is half done
                for pid in board.processes():
                    with suppress(ProcessLookupError):  # one may end with the one before it
                        os.kill(pid, 9)

    with pytest.raises(EdgeKDError, match=r"during a round of b\.onnx"):
        measure_on_host(models, "board", progress=pull_the_plug, **settings)
    (kept,) = (tmp_path / "cache/edgekd/ssh").iterdir()
    before = json.loads(kept.read_text())["rounds"]
    assert (len(before["a"]), len(before["b"])) == (3, 2)

    found = measure_on_host(models, "board", **settings)
    assert [list(samples) for samples in found.reports["a"].rounds_ms[:2]] == before["a"][:2]
    assert [list(samples) for samples in found.reports["b"].rounds_ms[:2]] == before["b"]
    assert list(found.reports["a"].rounds_ms[2]) != before["a"][2]
    assert [len(report.rounds_ms) for report in found.reports.values()] == [4, 4]
    assert CautionKind.RESUMED in {caution.kind for caution in found.reports["a"].warnings}
    assert list((tmp_path / "cache/edgekd/ssh").iterdir()) == []

    again = measure_on_host(models, "board", **settings)
    assert CautionKind.RESUMED not in {caution.kind for caution in again.reports["a"].warnings}
