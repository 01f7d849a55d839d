"""``--host`` on the command line."""

from __future__ import annotations

import platform
import re
import sys

import pytest


@pytest.fixture(autouse=True)
def ssh_config(board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKD_SSH_CONFIG", str(board.options.config))
    monkeypatch.setenv("XDG_CACHE_HOME", str(board.home / "here"))


def test_profile(edgekd, make_model) -> None:
    done = edgekd(
        "profile", make_model(), "--host", "board", "--rounds", 2, "--runs", 5, "--json", "-"
    ).json()
    (report,) = done["reports"].values()
    assert (report["kind"], report["host"], report["samples"]) == ("measured", "board", 10)
    assert report["health"]["throttled"] == []


@pytest.mark.parametrize("host", ["-oProxyCommand=touch x", "a;b", "a\nb"])
def test_a_host_that_is_an_option_or_a_piece_of_shell(edgekd, make_model, host: str) -> None:
    done = edgekd("profile", make_model(), f"--host={host}")
    assert done.code == 2
    assert "--host: not a host name" in done.err and done.err.count("\n") == 1


def test_a_changed_host_key(edgekd, board, make_model) -> None:
    other = (board.folder / "other_key.pub").read_text()
    (board.folder / "known_hosts").write_text(f"[127.0.0.1]:{board.port} {other}")
    done = edgekd("profile", make_model(), "--host", "board")
    assert done.code == 2
    assert "its host key is not the one that is known" in done.err and done.err.count("\n") == 1


def test_a_board_describes_itself(edgekd) -> None:
    found = edgekd("devices", "detect", "--host", "board", "--no-speed", "--json", "-").json()
    assert found["arch"] == platform.machine()


def test_power_is_printed(edgekd, board, make_model) -> None:
    board.program("nvpmodel", 'echo "NV Power Mode: 15W"; echo 0')
    board.program("tegrastats", "while :; do echo 'RAM 1/2MB VDD_IN 5000mW/4970mW'; sleep 0.01; done")
    done = edgekd("profile", make_model(size=700), "--host", "board", "--rounds", 3, "--runs", 5000)
    assert done.code == 0, done.err
    assert re.search(
        r"model\.onnx: [\d.]+ mJ an inference at 5\.00 W \(VDD_IN, \d+ samples, power mode 15W\)", done.out
    )


def test_a_set_up_needs_a_host(edgekd, make_model) -> None:
    done = edgekd("profile", make_model(), "--setup-venv")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "--setup-venv: sets up a board over ssh; name it: --host USER@BOARD" in done.err


def test_a_board_that_lacks_the_runtime(edgekd, board, make_model) -> None:
    board.program("python3", f'exec "{sys.base_prefix}/bin/python3" -S "$@"')
    done = edgekd("profile", make_model(), "--host", "board")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "lacks numpy and onnxruntime; --setup-venv installs it" in done.err
