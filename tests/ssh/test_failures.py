"""What can go wrong on the board, each in one line, with nothing left there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from edgekd.errors import EdgeKDError, HostError
from edgekd.profiles.ssh import link, remote
from edgekd.profiles.ssh.board import Board as Connection
from edgekd.profiles.ssh.bundle import program
from edgekd.profiles.ssh.destination import SshOptions
from edgekd.profiles.ssh.failures import login_failure, lost
from edgekd.profiles.ssh.measured import measure_on_host

QUICK = {"rounds": 2, "runs": 5, "warmup": 1, "resume": False}


def worker_that(board, does: str) -> SshOptions:
    """Options whose workers load the model and then, in place of a round, do ``does``."""
    return board.patched(f"worker.timed_round = lambda *a, **k: {does}")


@pytest.mark.parametrize(
    ("does", "told"),
    [
        (
            "os.kill(os.getpid(), signal.SIGILL)",
            r"on board: onnxruntime uses an instruction that this processor lacks",
        ),
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            r"on board: the measuring process was killed, most often for want of memory",
        ),
        (
            "os.kill(os.getpid(), signal.SIGSEGV)",
            r"on board: the runtime crashed on this file; got 'SIGSEGV'",
        ),
        ("bytearray(1 << 60)", r"board: the memory is not enough"),
        ("os._exit(3)", r"on board: the measuring process ended early; got 'exit status 3'"),
        (
            "no_such_name",
            r"on board: the measuring process ended early; got \"NameError: name 'no_such_name'",
        ),
    ],
)
def test_a_worker_dies_on_the_board(board, make_model, does: str, told: str) -> None:
    with pytest.raises(EdgeKDError, match=told) as caught:
        measure_on_host({"m": make_model()}, "board", options=worker_that(board, does), **QUICK)
    assert "\n" not in str(caught.value)


def test_a_round_that_never_ends(board, make_model, monkeypatch) -> None:
    monkeypatch.setattr(remote, "_SLACK_SECONDS", 0.5)
    options = worker_that(board, "signal.pause()")
    with pytest.raises(EdgeKDError, match=r"board: no answer in 1 s during a round of model\.onnx"):
        measure_on_host({"m": make_model()}, "board", options=options, max_seconds_per_round=0.001, **QUICK)


def test_the_board_is_full_before_anything_is_copied(board, make_model, monkeypatch) -> None:
    # As much as no disk has: what is sent is only the size.
    monkeypatch.setattr("edgekd.profiles.ssh.board._ROOM_BYTES", 1 << 60)
    with pytest.raises(
        HostError, match=r"board: the disk there is full; got '1152921504607 MB needed, \d+ MB free:"
    ):
        measure_on_host({"m": make_model()}, "board", options=board.options, **QUICK)


@pytest.mark.parametrize("alone", [True, False], ids=["nameless", "named"])
def test_the_board_becomes_full_while_a_file_is_copied(board, make_model, alone: bool) -> None:
    """A limit on the size of files stands in for a disk: a write fails in the middle, the rest is dropped."""
    board.program("python3", f'trap "" XFSZ; ulimit -f 100; exec "{sys.executable}" "$@"')
    model = make_model(size=400, external="" if alone else "w.data")
    with pytest.raises(HostError, match=r"board: cannot write files there; got 'File too large:"):
        measure_on_host({"m": model}, "board", options=board.options, **QUICK)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_small_disk_is_full(board, make_model, monkeypatch) -> None:
    monkeypatch.setattr("edgekd.profiles.ssh.board._ROOM_BYTES", -(1 << 30))  # as if it had room
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "small", board.tmp], check=False
    ).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(
            HostError, match=r"board: the disk there is full; got 'No space left on device: .*tmp'; free"
        ):
            measure_on_host({"m": make_model(size=400)}, "board", options=board.options, **QUICK)
        assert board.left() == ([], {})
    finally:
        subprocess.run(["umount", board.tmp], check=True)


def test_a_folder_that_cannot_be_written(board, make_model) -> None:
    board.program("python3", f'TMPDIR=/proc exec "{sys.executable}" "$@"')
    with pytest.raises(HostError, match=r"board: (cannot write files there|the disk there is full)"):
        measure_on_host({"m": make_model()}, "board", options=board.options, **QUICK)


def test_an_abandoned_folder_is_removed_by_the_next_agent(board) -> None:
    """Left when the power went: old, of our name, held by nobody. What is young or held stays."""
    for name in ("edgekd-1-old", "edgekd-1-young", "other-1-old"):
        (board.tmp / name).mkdir()
        (board.tmp / name / "lock").touch()
    for name in ("edgekd-1-old", "other-1-old"):
        os.utime(board.tmp / name, (0, 0))
    with Connection("board", board.options):
        assert sorted(os.listdir(board.tmp)) == ["edgekd-1-young", "other-1-old"]
    for name in ("edgekd-1-young", "other-1-old"):
        (board.tmp / name / "lock").unlink()
        (board.tmp / name).rmdir()


@pytest.fixture
def short_lease(monkeypatch) -> None:
    monkeypatch.setattr(
        "edgekd.profiles.ssh.board.program",
        lambda entry: program(entry).replace("LEASE_SECONDS = 120", "LEASE_SECONDS = 1"),
    )


def test_a_silent_caller_is_gone(board, monkeypatch, short_lease) -> None:
    """The network may be cut so that neither side hears of it: who says nothing for the lease's time is gone."""
    monkeypatch.setattr(link, "_BEAT_SECONDS", 1000.0)
    with (
        Connection("board", board.options) as there,
        pytest.raises(EdgeKDError, match="ended during silence"),
    ):
        there.link.during = "silence"
        there.link.line(60)


def test_signs_of_life_keep_the_agent(board, make_model, monkeypatch, short_lease) -> None:
    """Also from before the program is there to read them, and through a round that is longer than the lease."""
    monkeypatch.setattr(link, "_BEAT_SECONDS", 0.05)
    found = measure_on_host(
        {"m": make_model()}, "board", rounds=1, runs=10**9, warmup=0, max_seconds_per_round=1.5, resume=False,
        options=board.options,
    )  # fmt: skip
    assert found.reports["m"].samples > 1


def test_what_ssh_says_is_put_into_one_line() -> None:
    for told, words in {
        "ssh: connect to host b port 22: No route to host": "cannot be reached; got 'ssh: connect",
        "ssh: connect to host b port 22: Connection timed out": "no answer",
        "@@@ WARNING: UNPROTECTED PRIVATE KEY FILE! @@@\nPermission denied": "chmod 600 on the key",
        "Received disconnect: Too many authentication failures": "IdentitiesOnly",
        "Unable to negotiate with 1.2.3.4 port 22: no matching host key type found": "no common key or cipher",
        "something new": "ssh cannot connect; got 'something new'",
        "": "ssh ended with status 255",
    }.items():
        line = str(login_failure("pi@b", 255, told))
        assert line.startswith("pi@b: ") and words in line and "\n" not in line
    assert "Timeout, server b not responding." in str(
        lost("pi@b", 255, "Timeout, server b not responding.\n", during="a round")
    )
    assert str(login_failure("b", -9, "")) == "b: ssh was ended while it connected; got 'SIGKILL'"
    assert "no answer" in str(lost("pi@b", None, "", during="a round"))
