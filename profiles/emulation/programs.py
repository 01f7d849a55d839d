"""``qemu-aarch64``, the C compiler and the counting plugin: found, or compiled."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from edgekd.artifact import atomic_path
from edgekd.errors import EdgeKDError, MissingDependencyError, fault
from edgekd.profiles.emulation.userland import QEMU, SETUP, cache_home, own_qemu


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
    found = shutil.which(QEMU)
    program = Path(found) if found else own_qemu()
    if not program.exists():
        raise MissingDependencyError(
            fault(QEMU, "is not installed", fix=f"{SETUP}, or: apt-get install qemu-user")
        )
    libraries = (
        None
        if found
        else ":".join(str(path) for path in sorted((program.parents[1] / "lib").glob("*-linux-gnu")))
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
