"""``--host`` on the command line."""

from __future__ import annotations

import platform

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
