"""A script on the board, and everything that keeps it from running there."""

from __future__ import annotations

import sys

import pytest

from edgekd.errors import EdgeKDError, HostError, UserInputError
from edgekd.profiles.ssh.destination import SshOptions, check_host, ssh_command
from edgekd.profiles.ssh.script import run_script


@pytest.mark.parametrize(
    "host",
    ["board", "pi@raspberrypi.local", "pi@192.168.1.7", "::1", "pi@fe80::1%eth0", "user.name@a-b.c_d",
     "ssh://pi@board:2222", "ssh://[::1]:22"],
)  # fmt: skip
def test_hosts(host: str) -> None:
    assert check_host(host) == host
    assert ssh_command(host, "true", SshOptions())[-3:] == ["--", host, "true"]


@pytest.mark.parametrize(
    "host",
    ["", "-oProxyCommand=touch x", "-", "pi@-oProxyCommand=x", "a;b", "a b", "a\nb", "board\n", "$(id)", "`id`", "a|b",
     "a&b", "a'b", 'a"b', "pi@", "@board", "a@b@c", "pi@board:22", "ssh://", "ssh://-x", "ssh://a:b", "../x", "a%h"],
)  # fmt: skip
def test_what_is_no_host(host: str) -> None:
    with pytest.raises(UserInputError, match="--host: not a host name; got ") as caught:
        run_script(host, "print(1)")
    assert "\n" not in str(caught.value)


def test_a_script_runs_and_is_read(board) -> None:
    text = "import os, sys\nprint('it\\'s', \"ä\", os.environ['TMPDIR'], sys.stdin.buffer is not None)"
    assert run_script("board", text, options=board.options) == f"it's ä {board.tmp} True\n"


def test_through_a_jump_host(board) -> None:
    with (board.folder / "config").open("a") as config:
        own = (board.folder / "config").read_text().replace("Host board", "Host far")
        config.write(f"{own}ProxyJump board\n")
    assert run_script("far", "print(7)", options=board.options) == "7\n"


def test_a_script_that_fails_is_one_line(board) -> None:
    with pytest.raises(HostError) as caught:
        run_script("board", "raise RuntimeError('no \x1b[2J such thing')", options=board.options)
    assert str(caught.value) == ("board: the script fails there; got 'RuntimeError: no [2J such thing'")


def test_a_script_that_takes_too_long_is_ended_with_all_it_started(board) -> None:
    text = "import subprocess\nsubprocess.run(['sleep', '600'], stdin=subprocess.DEVNULL)"
    with pytest.raises(EdgeKDError, match=r"board: did not end in 1 s"):
        run_script("board", text, timeout_s=1, options=board.options)


def test_a_script_that_prints_without_end(board) -> None:
    with pytest.raises(EdgeKDError, match="prints without end"):
        run_script("board", "while True: print('x' * 1000)", options=board.options)


def test_what_the_login_prints_is_not_taken_for_output(board) -> None:
    board.program("python3", f'echo "Welcome to board"; echo edgekd-agent; exec "{sys.executable}" "$@"')
    assert run_script("board", "print(7)", options=board.options) == "7\n"


def test_a_login_that_never_stops_printing(board) -> None:
    board.program("python3", "exec yes")
    with pytest.raises(HostError, match="prints too much"):
        run_script("board", "print(7)", options=board.options)


def test_a_module_in_the_home_folder_does_no_harm(board, monkeypatch) -> None:
    board.program("python3", f'cd "{board.home}"; exec "{sys.executable}" "$@"')
    (board.home / "json.py").write_text("raise RuntimeError('the wrong json')")
    assert run_script("board", "import json; print(json.dumps([1]))", options=board.options) == "[1]\n"


def test_host_key_changed(board) -> None:
    other = (board.folder / "other_key.pub").read_text()
    (board.folder / "known_hosts").write_text(f"[127.0.0.1]:{board.port} {other}")
    with pytest.raises(
        HostError, match=r"board: its host key is not the one that is known; got .*HAS CHANGED"
    ) as caught:
        run_script("board", "print(1)", options=board.options)
    assert f"remove line 1 of {board.folder}/known_hosts, then ssh board" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_host_key_unknown_also_where_the_user_does_not_care(board) -> None:
    (board.folder / "known_hosts").write_text("")
    with (board.folder / "config").open("a") as config:
        config.write("StrictHostKeyChecking no\n")
    with pytest.raises(
        HostError, match=r"its host key is not known here.*run ssh board once, compare the fingerprint"
    ):
        run_script("board", "print(1)", options=board.options)
    assert (board.folder / "known_hosts").read_text() == ""


def test_no_key_is_accepted(board) -> None:
    config = board.folder / "config"
    config.write_text(config.read_text().replace(f'{board.folder}/id"', f'{board.folder}/other_key"'))
    with pytest.raises(HostError, match=r"no key was accepted.*ssh-copy-id board"):
        run_script("board", "print(1)", options=board.options)


def test_nothing_listens(board) -> None:
    config = board.folder / "config"
    config.write_text(config.read_text().replace(f"Port {board.port}", "Port 1"))
    with pytest.raises(HostError, match="nothing listens for ssh there"):
        run_script("board", "print(1)", options=board.options)


def test_an_unknown_name(board) -> None:
    with pytest.raises(HostError, match="the name is unknown"):
        run_script("nowhere.invalid", "print(1)", options=board.options)


def test_a_configuration_with_a_mistake(board) -> None:
    with (board.folder / "config").open("a") as config:
        config.write("NoSuchOption yes\n")
    with pytest.raises(HostError, match=r"the ssh configuration is wrong; got .*nosuchoption"):
        run_script("board", "print(1)", options=board.options)


def test_no_ssh_here(board) -> None:
    with pytest.raises(HostError, match=r"no-such-ssh: cannot be run.*install the OpenSSH client"):
        run_script("board", "print(1)", options=SshOptions(program="no-such-ssh"))


def test_no_python_there(board) -> None:
    (board.bin / "python3").unlink()
    board.program("python3", "exit 127")
    with pytest.raises(HostError, match="board: has no python3"):
        run_script("board", "print(1)", options=board.options)


def test_a_python_that_is_too_old(board) -> None:
    board.program("python3", "echo edgekd-agent 3 5; cat >/dev/null")
    with pytest.raises(
        HostError, match=r"python3 on the board is too old; got '3\.5'; allowed: 3\.6 or newer"
    ):
        run_script("board", "print(1)", options=board.options)


def test_a_python_that_does_not_start(board) -> None:
    board.program("python3", "echo libpython is broken >&2; exit 1")
    with pytest.raises(HostError, match="python3 does not start on the board; got 'libpython is broken'"):
        run_script("board", "print(1)", options=board.options)
