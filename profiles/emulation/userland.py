"""The arm64 userland in the user's cache: set up, looked at, removed.

::

    ~/.cache/edgekd/emulate/
        debs/  host-debs/  wheels/   what was fetched so far; an interrupted set-up goes on with it
        root/                        the userland, with the runtime in root/site; renamed here when complete
        host/                        qemu-user for this machine, where the system has none
        plugin-*.so                  compiled on first use
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from edgekd.artifact import sha256_file, write_json
from edgekd.errors import EdgeKDError, MissingDependencyError, OutputError, fault
from edgekd.profiles.emulation.fetch import fetch_debs, fetch_wheels
from edgekd.profiles.emulation.unpack import unpack_deb, unpack_wheel

SETUP = "run: edgekd devices emulate --setup"
QEMU = "qemu-aarch64"
_MANIFEST = "edgekd-userland.json"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Userland:
    """Attributes:
    root: its top folder.
    python: version of its interpreter, such as ``3.11``.
    """

    root: Path
    python: str
    runtime_version: str

    @property
    def interpreter(self) -> Path:
        return self.root / "usr" / "bin" / f"python{self.python}"


def cache_home() -> Path:
    """Where everything that is fetched stands: below ``$XDG_CACHE_HOME``, or ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "edgekd" / "emulate"


def find_userland() -> Userland | None:
    """The userland, where it is set up for this version of edgekd."""
    root = cache_home() / "root"
    try:
        found = json.loads((root / _MANIFEST).read_text(encoding="utf-8"))
        if found["plan"] != _plan_id():
            return None
        return Userland(root, found["python"], found["runtime_version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def userland() -> Userland:
    """As :func:`find_userland`.

    Raises:
        MissingDependencyError: it is not set up.
    """
    found = find_userland()
    if found is None:
        raise MissingDependencyError(fault("emulation", "the arm64 userland is not set up", fix=SETUP))
    return found


def set_up(*, sources: Path | None = None, progress: Progress | None = None) -> Userland:
    """Fetch and unpack what is missing; at once when all is there. Needs no root.

    Args:
        sources: a ``sources.list`` with arm64 packages in place of apt's own sources.

    Raises:
        MissingDependencyError: no apt or pip here.
        EdgeKDError: no network, a wrong checksum, an archive that leads out of its folder.
        OutputError: the cache cannot be written.
    """
    tell = progress or (lambda text: None)
    home = cache_home()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _alone(home):
            if not _has_qemu():
                tell("fetching qemu-user for this machine")
                _unpack_qemu(home)
            found = find_userland()
            if found is None:
                found = _build(home, sources, tell)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        fix = "free 400 MB, or set XDG_CACHE_HOME to another folder, and run it again: it goes on"
        raise OutputError(fault(str(home), "cannot be written", got=reason, fix=fix)) from error
    return found


def remove() -> int:
    """Remove everything that was fetched. Returns the bytes freed."""
    home = cache_home()
    size = size_bytes()
    shutil.rmtree(home, ignore_errors=True)
    return size


def size_bytes() -> int:
    """Of everything below :func:`cache_home`."""
    return sum(path.lstat().st_size for path in cache_home().rglob("*") if path.is_file())


def _build(home: Path, sources: Path | None, tell: Progress) -> Userland:
    from edgekd.profiles.emulation.emulator import first_import

    plan = _plan()
    tell("fetching the arm64 userland with apt")
    debs = fetch_debs(plan["packages"], home / "debs", arch="arm64", sources=sources)
    python = _python_version(debs, plan)
    tell("fetching onnxruntime and numpy for aarch64 with pip")
    wheels = fetch_wheels(plan["wheels"][python], home / "wheels", python=python, platforms=plan["platforms"])
    tell(f"unpacking {len(debs)} packages and {len(wheels)} wheels")
    with tempfile.TemporaryDirectory(prefix=".root-", dir=home) as folder:
        root = Path(folder) / "root"
        for deb in debs:
            unpack_deb(deb, root)
        for wheel in wheels:
            unpack_wheel(wheel, root / "site")
        manifest = {
            "plan": _plan_id(),
            "python": python,
            "runtime_version": plan["runtime_version"],
            "sha256": {path.name: sha256_file(path) for path in (*debs, *wheels)},
        }
        tell("importing the runtime on an emulated core for the first time")
        first_import(Userland(root, python, plan["runtime_version"]))
        write_json(root / _MANIFEST, manifest)
        shutil.rmtree(home / "root", ignore_errors=True)
        root.replace(home / "root")
    for fetched in ("debs", "wheels"):
        shutil.rmtree(home / fetched, ignore_errors=True)
    return Userland(home / "root", python, plan["runtime_version"])


def _python_version(debs: list[Path], plan: dict[str, Any]) -> str:
    names = [deb.name for deb in debs]
    for version in plan["wheels"]:
        if any(name.startswith(f"python{version}-minimal_") for name in names):
            return str(version)
    known = ", ".join(plan["wheels"])
    what = "the sources' arm64 Python is none that edgekd knows wheels for"
    raise EdgeKDError(fault("apt (arm64)", what, allowed=known, fix="name other sources with --sources FILE"))


def own_qemu() -> Path:
    """Where qemu-user stands when the system has none."""
    return cache_home() / "host" / "usr" / "bin" / QEMU


def _has_qemu() -> bool:
    return bool(shutil.which(QEMU)) or own_qemu().exists()


def _unpack_qemu(home: Path) -> None:
    debs = fetch_debs(["qemu-user"], home / "host-debs", arch=None)
    with tempfile.TemporaryDirectory(prefix=".host-", dir=home) as folder:
        for deb in debs:
            unpack_deb(deb, Path(folder) / "host")
        for program in (Path(folder) / "host/usr/bin").glob("qemu-*"):
            if program.name != QEMU:
                program.unlink()  # other architectures: 60 MB
        (Path(folder) / "host").replace(home / "host")
    shutil.rmtree(home / "host-debs", ignore_errors=True)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One set-up at a time; a second waits and then finds everything there."""
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _plan() -> dict[str, Any]:
    text = resources.files("edgekd.profiles.emulation").joinpath("userland.json").read_text(encoding="utf-8")
    plan: dict[str, Any] = json.loads(text)
    return plan


def _plan_id() -> str:
    """Changes with what is to be set up."""
    return json.dumps([_plan()["packages"], _plan()["wheels"]], sort_keys=True)
