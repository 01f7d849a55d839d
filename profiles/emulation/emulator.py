"""The runtime run on an emulated core: as the board, with its inputs, counted or not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.device import load_device
from edgekd.errors import EdgeKDError, MissingDependencyError, ModelFileError, fault
from edgekd.profiles.emulation.cores import EmulatedCore, emulated_core, present_board
from edgekd.profiles.emulation.programs import Qemu, counter_plugin, qemu
from edgekd.profiles.emulation.userland import Userland, userland


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
        counting = _counting(plugin, core, folder) if plugin else None
        command = _emulated(emulator, board, core, view, counting, bytecode=False)
        command += [str(folder / "guest.py"), str(folder / "request.json")]
        _run(command, emulator, str(request["model"]), core)
        answer: dict[str, Any] = json.loads(files["answer"].read_text(encoding="utf-8"))
    except BaseException:
        keeper.cleanup()
        raise
    return answer, folder, keeper


def first_import(board: Userland) -> str:
    """Import the runtime on an emulated core once: it works, and the next one reads compiled Python.

    Returns:
        the runtime's version, as it says itself.
    """
    core = emulated_core(load_device("raspberry-pi-4b"))
    with tempfile.TemporaryDirectory(prefix="edgekd-emulate-") as keeper:
        view = present_board(core, board.root, Path(keeper))
        command = [*_emulated(qemu(), board, core, view, None, bytecode=True), "-c"]
        script = "import numpy, onnxruntime; print(onnxruntime.__version__)"
        return _run([*command, script], qemu(), "onnxruntime", core).strip()


def _emulated(
    emulator: Qemu, board: Userland, core: EmulatedCore, view: Path, plugin: str | None, *, bytecode: bool
) -> list[str]:
    """The command up to the interpreter."""
    command = [str(emulator.program), "-cpu", core.emulator, "-L", str(view)]
    if plugin is not None:
        command += ["-plugin", plugin]
    # What qemu itself needs from the environment is no business of the guest's loader.
    command += ["-U", "LD_LIBRARY_PATH"]
    for name, value in {
        "PYTHONHOME": view / "usr", "PYTHONPATH": view / "site", "PYTHONDONTWRITEBYTECODE": "" if bytecode else "1",
        "OPENBLAS_NUM_THREADS": "1", "LC_ALL": "C.UTF-8",
    }.items():  # fmt: skip
        command += ["-E", f"{name}={value}"]
    return [*command, str(view / board.interpreter.relative_to(board.root))]


def _counting(plugin: Path, core: EmulatedCore, folder: Path) -> str:
    levels = "".join(f",cache={kib * 1024}:{ways}" for kib, ways in core.caches)
    return f"{plugin},out={folder / 'counts.txt'}{levels}"


def _run(command: list[str], emulator: Qemu, what: str, core: EmulatedCore) -> str:
    environment = {"PATH": os.defpath, "HOME": "/nonexistent", "ORT_DISABLE_TELEMETRY": "1"}
    if emulator.libraries:
        environment["LD_LIBRARY_PATH"] = emulator.libraries
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode == 0:
        return done.stdout
    where = f"{what} on an emulated {core.name}"
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
