"""A virtual environment on the board with what a measurement needs, made under another name and renamed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.profiles.ssh.onboard.folder import Folder, locked

if TYPE_CHECKING:
    from edgekd.profiles.ssh.onboard.pipes import Pipes

_TEMPORARY = "tmp"
NEEDED = ("numpy", "onnxruntime")


def venv_python(cache: Path) -> Path:
    return cache / "venv/bin/python"


class SetupError(Exception):
    """The last lines of what failed."""


def make_venv(folder: Folder, pipes: Pipes) -> str:
    """Make ``~/.cache/edgekd/venv`` anew; its interpreter.

    Raises:
        SetupError: ``venv`` or ``pip`` fails.
    """
    new, final = folder.new_venv, venv_python(folder.cache).parent.parent
    folder.cache.mkdir(parents=True, exist_ok=True)
    with locked(new) as lock:
        python = str(new / "bin/python")
        pip = [
            python,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--no-input",
            "install",
            "--progress-bar",
            "off",
        ]
        (new / _TEMPORARY).mkdir()
        _run([sys.executable, "-m", "venv", str(new)], pipes, str(new / _TEMPORARY))
        _run(
            [*pip, "--upgrade", "pip"], pipes, str(new / _TEMPORARY)
        )  # an old one does not know the names of today's wheels
        # Building from source would take the board hours.
        _run([*pip, "--only-binary", ":all:", *NEEDED], pipes, str(new / _TEMPORARY))
        Path(lock.name).unlink()
        shutil.rmtree(new / _TEMPORARY)
        shutil.rmtree(final, ignore_errors=True)
        new.rename(final)
    return str(venv_python(folder.cache))


def _run(command: list[str], pipes: Pipes, temporary: str) -> None:
    process = subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "TMPDIR": temporary},  # what pip leaves when it is killed goes with the folder
    )
    assert process.stdout
    lines: list[str] = []
    try:
        while True:
            line = pipes.line_of(process.stdout.fileno())
            if line is None:
                break
            lines += [text for text in line.decode("utf-8", "replace").splitlines() if text.strip()]
            if lines:
                pipes.answer({"told": lines[-1][:200]})
    finally:
        process.stdout.close()
        if sys.exc_info()[0]:
            process.kill()
    if process.wait():
        raise SetupError("\n".join(lines[-5:]) or f"exit status {process.returncode}")
