"""What a measurement needs, installed on the board; and a board that lacks it."""

from __future__ import annotations

import os
import signal
import sys
import zipfile
from pathlib import Path

import pytest

from edgekd.errors import EdgeKDError, HostError, MissingDependencyError
from edgekd.profiles.ssh.board import Board as Connection
from edgekd.profiles.ssh.destination import SshOptions
from edgekd.profiles.ssh.measured import measure_on_host
from edgekd.profiles.ssh.setup import setup_venv


def wheel(folder: Path, name: str) -> None:
    info = f"{name}-0.1.dist-info"
    with zipfile.ZipFile(folder / f"{name}-0.1-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


def only_from(board, wheels: Path) -> None:
    """What pip on the board finds."""
    settings = board.home / ".config/pip"
    settings.mkdir(parents=True)
    (settings / "pip.conf").write_text(f"[global]\nno-index = true\nfind-links = {wheels}\n")


def test_the_venv_is_made_and_used(board, tmp_path) -> None:
    board.python(f"{sys.base_prefix}/bin/python3")
    for name in ("numpy", "onnxruntime"):
        wheel(tmp_path, name)
    only_from(board, tmp_path)
    lines: list[str] = []
    python = setup_venv("board", told=lines.append, options=board.options)
    assert python == f"{board.home}/.cache/edgekd/venv/bin/python"
    assert any("Successfully installed numpy-0.1 onnxruntime-0.1" in line for line in lines)
    assert os.listdir(board.home / ".cache/edgekd") == ["venv"]
    with Connection("board", board.options) as there:
        assert there.python(["numpy", "onnxruntime"]) == python


def with_venv(board, pip: str) -> None:
    """A python3 whose ``venv`` module makes an interpreter that does as ``pip`` says, in shell."""
    (board.home / "venv.py").write_text(
        "import pathlib, sys\n"
        "python = pathlib.Path(sys.argv[1], 'bin/python')\n"
        "python.parent.mkdir(parents=True)\n"
        f"python.write_text({'#!/bin/sh' + chr(10) + pip!r})\n"
        "python.chmod(0o755)\n"
    )
    board.program("python3", f'PYTHONPATH="{board.home}" exec "{sys.executable}" "$@"')


def test_a_package_that_is_not_to_be_had(board) -> None:
    with_venv(
        board,
        "case $* in *numpy*) echo 'ERROR: No matching distribution found for onnxruntime'; exit 1;; esac",
    )
    with pytest.raises(
        HostError, match=r"board: no onnxruntime for Python .*No matching distribution"
    ) as caught:
        setup_venv("board", options=board.options)
    assert "\n" not in str(caught.value)
    assert os.listdir(board.home / ".cache/edgekd") == []


def test_a_python_that_cannot_make_a_venv(board) -> None:
    (board.home / "venv.py").write_text("raise SystemExit('... because ensurepip is not available')")
    board.program("python3", f'PYTHONPATH="{board.home}" exec "{sys.executable}" "$@"')
    with pytest.raises(HostError, match=r"cannot make a venv; got .*sudo apt install python3-venv"):
        setup_venv("board", options=board.options)


@pytest.mark.parametrize("part", ["agent", "guard"])
def test_a_set_up_that_is_killed_leaves_nothing(board, part: str) -> None:
    def kill(line: str) -> None:
        assert line == "Collecting"
        assert len(os.listdir(board.home / ".cache/edgekd")) == 1
        os.kill(board.parts()[part], signal.SIGKILL)

    with_venv(board, 'touch "$TMPDIR/left"; echo Collecting; exec sleep 600')
    with pytest.raises(EdgeKDError, match="during the set-up"):
        setup_venv("board", told=kill, options=board.options)
    board.wait_until(lambda: not board.processes())
    assert os.listdir(board.home / ".cache/edgekd") == []


def test_a_board_without_the_runtime(board, make_model) -> None:
    board.program("python3", f'exec "{sys.base_prefix}/bin/python3" -S "$@"')  # -S: no site-packages
    with pytest.raises(
        MissingDependencyError, match="lacks numpy and onnxruntime; --setup-venv installs"
    ) as caught:
        measure_on_host({"m": make_model()}, "board", options=board.options, resume=False)
    assert "\n" not in str(caught.value)


def test_a_chosen_interpreter_that_is_not_there(board, make_model) -> None:
    options = SshOptions(config=board.options.config, python="/no/such/python")
    with pytest.raises(HostError, match="/no/such/python"):
        measure_on_host({"m": make_model()}, "board", options=options, resume=False)
