"""A board: a real sshd on the loopback interface, in a throw-away configuration, with programs of our own."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgekd.profiles.ssh.destination import SshOptions

PATIENCE_SECONDS = 60.0


@dataclass
class Board:
    """What a login finds there.

    Attributes:
        tmp: its TMPDIR; every test must leave it empty.
        bin: first folder of its PATH.
        home: its HOME.
        folder: keys, configuration and known hosts, on the caller's side.
    """

    folder: Path
    port: int
    name: str = "board"

    @property
    def tmp(self) -> Path:
        return self.folder / "tmp"

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def options(self) -> SshOptions:
        return SshOptions(config=self.folder / "config")

    def program(self, name: str, text: str) -> Path:
        """Put a shell script on the board's PATH."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def python(self, executable: str = sys.executable) -> None:
        """What ``python3`` is there."""
        self.program("python3", f'exec "{executable}" "$@"')

    def patched(self, code: str) -> SshOptions:
        """Options with an interpreter on the board whose workers run ``code`` before they serve."""
        # A worker's program ends with the call of work(): what stands before it has already been defined.
        patch = self.bin / "patched.py"
        patch.write_text(
            "import sys\n"
            "f = sys.stdin.buffer\n"
            "text = f.read(int(f.readline())).decode()\n"
            "head, _, call = text.rstrip().rpartition('\\n')\n"
            "imports = 'import os, pathlib, signal, time; from edgekd.profiles import worker'\n"
            f"exec(compile('\\n'.join([head, imports, {code!r}, call]), 'edgekd-worker', 'exec'))\n"
        )
        python = self.program("patched-python", f'exec "{sys.executable}" "{patch}"')
        return SshOptions(config=self.options.config, python=str(python))

    def processes(self) -> dict[int, str]:
        """What runs there now: process id to command line."""
        found = {}
        mark = f"EDGEKD_TEST_BOARD={self.folder}".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (
                        (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    )
        return found

    def parts(self) -> dict[str, int]:
        """Process ids of ``guard``, ``agent`` and ``worker``: each is a child of the one before."""
        parents = {}
        for pid in (pid for pid, command in self.processes().items() if "rm -rf" not in command):
            with contextlib.suppress(OSError):
                parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found = {}
        for pid, parent in parents.items():
            depth = (parent in parents) + (parents.get(parent) in parents)
            found[("guard", "agent", "worker")[depth]] = pid
        return found

    def wait_until(self, happened: Callable[[], object]) -> None:
        wait_until(happened)

    def left(self) -> tuple[list[str], dict[int, str]]:
        """Files and processes, once those that are about to go have gone."""
        wait_until(lambda: not self.processes() and not list(self.tmp.iterdir()), must=False)
        return sorted(str(path.relative_to(self.tmp)) for path in self.tmp.rglob("*")), self.processes()


def wait_until(happened: Callable[[], object], *, must: bool = True) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        if time.monotonic() > end:
            assert not must, "it did not happen"
            return
        time.sleep(0.01)


def _write_config(board: Board) -> None:
    (board.folder / "config").write_text(
        f"""Host {board.name}
HostName 127.0.0.1
Port {board.port}
User {getpass.getuser()}
IdentityFile "{board.folder}/id"
IdentitiesOnly yes
IdentityAgent none
UserKnownHostsFile "{board.folder}/known_hosts"
GlobalKnownHostsFile /dev/null
"""
    )


@pytest.fixture(scope="session")
def running_board(needs: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    sshd, keygen, _ = needs("sshd"), needs("ssh-keygen"), needs("ssh")
    folder = tmp_path_factory.mktemp("board")
    for name in ("id", "host_key", "other_key"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        board = Board(folder, probe.getsockname()[1])
    for path in (board.tmp, board.bin, board.home):
        path.mkdir()
    shutil.copy(folder / "id.pub", folder / "authorized_keys")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists, whatever its configuration
    (folder / "sshd_config").write_text(
        f"""Port {board.port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PrintMotd no
MaxStartups 100
SetEnv PATH={board.bin}:{os.environ["PATH"]} TMPDIR={board.tmp} HOME={board.home} EDGEKD_TEST_BOARD={folder}
"""
    )
    with (folder / "sshd.log").open("wb") as log:
        server = subprocess.Popen([sshd, "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
    try:
        wait_until(lambda: _listens(board.port) or server.poll() is not None)
        assert server.poll() is None, (folder / "sshd.log").read_text()
        yield board
    finally:
        server.terminate()
        server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def board(running_board: Board) -> Iterator[Board]:
    """The board as it is when new; after the test nothing of ours may be left on it."""
    key = (running_board.folder / "host_key.pub").read_text()
    (running_board.folder / "known_hosts").write_text(f"[127.0.0.1]:{running_board.port} {key}")
    _write_config(running_board)
    for folder in (running_board.bin, running_board.home, running_board.tmp):
        shutil.rmtree(folder)
        folder.mkdir()
    running_board.python()
    yield running_board
    assert running_board.left() == ([], {})


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """``make_model(name, size)``: a real ONNX file that multiplies a vector by a ``(size, size)`` matrix."""

    def make(
        name: str = "model.onnx", size: int = 16, *, external: str = "", operator: str = "MatMul"
    ) -> Path:
        import numpy as np
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        weight = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
        graph = helper.make_graph(
            [helper.make_node(operator, ["x", "weight"], ["y"])],
            "vector",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", size])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", size])],
            [numpy_helper.from_array(weight, "weight")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        path = tmp_path / name
        if external:
            onnx.save(model, path, save_as_external_data=True, location=external, size_threshold=0)
        else:
            onnx.save(model, path)
        return path

    return make
