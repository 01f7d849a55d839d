"""How long a board's agent takes to start, beside the runtime's own import: ``python -m benchmarks.agent_start``.

Without ``--host`` the agent runs on this machine behind a stand-in for ssh, so that network and log-in do not
count. The bar: under 2 s plus the runtime's import. Each figure is the best of ``--times``; the worker's is the
time from asking for it until its model has run once, less what a bare ``import onnxruntime`` takes there.
"""

from __future__ import annotations

import argparse
import stat
import sys
import tempfile
import time
from pathlib import Path

from edgekd.profiles.runner import RunSettings
from edgekd.profiles.ssh.board import Board
from edgekd.profiles.ssh.bundle import program
from edgekd.profiles.ssh.destination import SshOptions
from edgekd.profiles.ssh.files import board_files, copy_files
from edgekd.profiles.ssh.remote import RemoteRunner
from edgekd.profiles.ssh.script import run_script

IMPORT = """\
import subprocess, sys, time
best = []
for _ in range({times}):
    start = time.perf_counter()
    subprocess.run([{python!r}, "-c", {code!r}], check=True, stdin=subprocess.DEVNULL)
    best.append(time.perf_counter() - start)
print(min(best))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="a small ONNX file")
    parser.add_argument("--host", help="a board; without it this machine, without ssh")
    parser.add_argument("--times", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options = SshOptions() if arguments.host else SshOptions(program=str(stand_in(Path(folder))))
        host = arguments.host or "here"
        agents, workers = [], []
        for _ in range(arguments.times):
            start = time.perf_counter()
            with Board(host, options) as board:
                agents.append(time.perf_counter() - start)
                python = board.python(["numpy", "onnxruntime"])
                files = board_files(arguments.model, ["onnxruntime"])
                places = copy_files(board, {arguments.model: files})
                start = time.perf_counter()
                runner = RemoteRunner(
                    board, 0, python=python, remote_path=places[arguments.model], path=arguments.model,
                    settings=RunSettings(),
                )  # fmt: skip
                runner.open()
                workers.append(time.perf_counter() - start)
        runtime, bare = (
            float(
                run_script(
                    host, IMPORT.format(times=arguments.times, python=python, code=code), options=options
                )
            )
            for code in ("import onnxruntime, numpy", "pass")
        )
    print(
        f"carried over:                      {len(program('edgekd.profiles.ssh.onboard.agent')) / 1e3:8.0f} kB"
    )
    print(f"connect until the agent answers:   {min(agents):8.2f} s")
    print(f"a worker until the model has run:  {min(workers):8.2f} s")
    print(f"  of it importing the runtime:     {runtime - bare:8.2f} s")
    print(f"agent and worker less the runtime: {min(agents) + min(workers) - (runtime - bare):8.2f} s")


def stand_in(folder: Path) -> Path:
    """A program that takes ssh's arguments and runs the command, their last, here."""
    path = folder / "ssh"
    path.write_text(
        f'#!/bin/sh\nfor last; do :; done\nPATH="{Path(sys.executable).parent}:$PATH" exec sh -c "$last"\n'
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


if __name__ == "__main__":
    main()
