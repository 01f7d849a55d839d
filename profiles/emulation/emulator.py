"""``qemu-aarch64`` and the counting plugin: found, compiled, run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.artifact import atomic_path
from edgekd.errors import EdgeKDError, MissingDependencyError, ModelFileError, fault
from edgekd.profiles.emulation.cores import EmulatedCore, present_board
from edgekd.profiles.emulation.userland import SETUP, Userland, cache_home, userland

_QEMU = "qemu-aarch64"


@dataclass(frozen=True)
class Qemu:
    """Attributes:
    version: such as ``(7, 2)``.
    libraries: where its own libraries stand, if it came with the userland.
    """

    program: Path
    version: tuple[int, int]
    libraries: str | None


@cache
def qemu() -> Qemu:
    """The emulator on the path, or the one that came with the userland.

    Raises:
        MissingDependencyError: there is none, or it does not start.
    """
    own = cache_home() / "host"
    found = shutil.which(_QEMU)
    program = Path(found) if found else own / "usr" / "bin" / _QEMU
    if not program.exists():
        raise MissingDependencyError(
            fault(_QEMU, "is not installed", fix=f"{SETUP}, or: apt-get install qemu-user")
        )
    libraries = (
        None if found else ":".join(str(path) for path in sorted((own / "usr/lib").glob("*-linux-gnu")))
    )
    environment = {"LD_LIBRARY_PATH": libraries} if libraries else {}
    try:
        shown = subprocess.run(  # noqa: S603
            [program, "--version"], env=environment, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise MissingDependencyError(
            fault(str(program), "does not start", got=str(error), fix="run: apt-get install qemu-user")
        ) from None
    version = re.search(r"version (\d+)\.(\d+)", shown)
    return Qemu(program, (int(version[1]), int(version[2])) if version else (0, 0), libraries)


def compiler() -> str:
    """The C compiler: ``$CC``, ``cc``, ``gcc`` or ``clang``.

    Raises:
        MissingDependencyError: there is none.
    """
    found = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))), None)
    if found is None:
        fix = "run: apt-get install gcc libc6-dev"
        raise MissingDependencyError(fault("a C compiler", "is not installed", fix=fix))
    return found


def counter_plugin() -> Path:
    """The counting plugin, compiled on first use for this qemu.

    Raises:
        MissingDependencyError: no C compiler.
        EdgeKDError: it does not compile.
    """
    source = resources.files("edgekd.profiles.emulation").joinpath("counter.c").read_text(encoding="utf-8")
    version = qemu().version
    api = 1 if version < (9, 0) else 2 if version < (9, 1) else 3
    key = hashlib.sha256(f"{api} {source}".encode()).hexdigest()[:12]
    target = cache_home() / f"plugin-{key}.so"
    if target.exists():
        return target
    with atomic_path(target) as temporary:
        command = [
            compiler(),
            "-O2",
            "-fPIC",
            "-shared",
            f"-DAPI={api}",
            "-x",
            "c",
            "-",
            "-o",
            str(temporary),
        ]
        done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            got = (done.stderr.strip().splitlines() or ["no message"])[0]
            raise EdgeKDError(
                fault("counter.c", "does not compile", got=got, fix="run: apt-get install gcc libc6-dev")
            )
    return target


def run_guest(
    request: Mapping[str, Any], feeds: Mapping[str, np.ndarray], core: EmulatedCore, *, counted: bool
) -> tuple[dict[str, Any], Path, tempfile.TemporaryDirectory[str]]:
    """Run ``guest.py`` on the emulated core.

    Args:
        request: as ``guest.py`` documents it; files of the answer are put into the returned folder.
        counted: under the plugin, whose records come as ``counts.txt``.

    Returns:
        the answer, the folder with its files, and what keeps that folder.

    Raises:
        MissingDependencyError: qemu, the userland or a compiler is missing.
        ModelFileError: the runtime cannot load or run the file there.
    """
    board, emulator = userland(), qemu()
    plugin = counter_plugin() if counted else None
    keeper = tempfile.TemporaryDirectory(prefix="edgekd-emulate-")
    folder = Path(keeper.name)
    try:
        view = folder / "board"
        view.mkdir()
        present_board(core, board.root, view)
        np.savez(folder / "inputs.npz", **feeds)  # type: ignore[arg-type]
        files = {
            "inputs": folder / "inputs.npz", "answer": folder / "answer.json",
            "profile": folder / "profile", "outputs": folder / "outputs.npz",
        }  # fmt: skip
        whole = {**{name: str(path) for name, path in files.items()}, **request}
        (folder / "request.json").write_text(json.dumps(whole), encoding="utf-8")
        script = resources.files("edgekd.profiles.emulation").joinpath("guest.py").read_text(encoding="utf-8")
        (folder / "guest.py").write_text(script, encoding="utf-8")
        _run(_command(emulator, board, core, view, plugin, folder), emulator, Path(request["model"]), core)
        answer: dict[str, Any] = json.loads(files["answer"].read_text(encoding="utf-8"))
    except BaseException:
        keeper.cleanup()
        raise
    return answer, folder, keeper


def _command(
    emulator: Qemu, board: Userland, core: EmulatedCore, view: Path, plugin: Path | None, folder: Path
) -> list[str]:
    command = [str(emulator.program), "-cpu", core.emulator, "-L", str(view)]
    if plugin is not None:
        levels = "".join(f",cache={kib * 1024}:{ways}" for kib, ways in core.caches)
        command += ["-plugin", f"{plugin},out={folder / 'counts.txt'}{levels}"]
    # What qemu itself needs from the environment is no business of the guest's loader.
    command += ["-U", "LD_LIBRARY_PATH"]
    for name, value in {
        "PYTHONHOME": view / "usr", "PYTHONPATH": view / "site", "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1", "LC_ALL": "C.UTF-8",
    }.items():  # fmt: skip
        command += ["-E", f"{name}={value}"]
    interpreter = view / board.interpreter.relative_to(board.root)
    return [*command, str(interpreter), str(folder / "guest.py"), str(folder / "request.json")]


def _run(command: list[str], emulator: Qemu, model: Path, core: EmulatedCore) -> None:
    environment = {"PATH": os.defpath, "HOME": "/nonexistent"}
    if emulator.libraries:
        environment["LD_LIBRARY_PATH"] = emulator.libraries
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode == 0:
        return
    where = f"{model} on an emulated {core.name}"
    lines = done.stderr.strip().splitlines()
    last = lines[-1] if lines else f"exit status {done.returncode}"
    illegal = any("Illegal instruction" in line or "uncaught target signal 4" in line for line in lines)
    if illegal or done.returncode in (-signal.SIGILL, 128 + signal.SIGILL):
        what = "onnxruntime uses an instruction that this core lacks: it would end the same way on the board"
        raise ModelFileError(fault(where, what, got="SIGILL"))
    if "plugin" in last.lower():
        fix = "install the dynamic qemu-user; a static one loads no plugins"
        raise MissingDependencyError(fault(str(emulator.program), "cannot count", got=last, fix=fix))
    if any("Killed" in line for line in lines) or done.returncode == -signal.SIGKILL:
        what = "the emulation was killed, most often for want of memory"
        raise EdgeKDError(fault(where, what, fix="free memory, or emulate a smaller model or batch"))
    raise ModelFileError(fault(where, "the runtime cannot run the file", got=last[:300]))
