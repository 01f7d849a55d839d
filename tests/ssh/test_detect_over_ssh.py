"""A board describes itself over a real ssh connection."""

from __future__ import annotations

import pytest

from edgekd.cpu import detect_cpu
from edgekd.device_facts import fact_number
from edgekd.errors import HostError
from edgekd.probe import detect_device
from edgekd.profiles.ssh.script import run_script


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path))


def test_the_board_says_what_it_is_and_how_fast_it_copies(board) -> None:
    nvpmodel = 'echo "NV Power Mode: MAXN"; echo 0'
    board.program("nvpmodel", nvpmodel)
    spec = detect_device(
        lambda script: run_script("board", script, options=board.options), where="board", name="there"
    )
    here = detect_cpu()
    assert (spec.name, spec.arch, spec.cores, spec.memory_bytes) == (
        "there", here.arch, here.cores, here.memory_bytes,
    )  # fmt: skip
    fact = spec.fact("memcpy_1t")
    assert fact is not None and fact.source.startswith("measured: one process copies")
    assert (fact_number(spec, "stream_copy") or 0) > 0


def test_a_board_that_cannot_be_asked_is_one_line(board) -> None:
    board.program("python3", "echo 'python3: not found' >&2; exit 127")
    with pytest.raises(HostError) as caught:
        detect_device(lambda script: run_script("board", script, options=board.options), where="board")
    assert "\n" not in str(caught.value)
