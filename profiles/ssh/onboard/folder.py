"""Files on the board: without a name where that is possible, else in one folder that whoever is last removes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

_PREFIX = "edgekd-"
_LOCK = "lock"
_YOUNG_SECONDS = 600  # a folder without a lock may be one that is just being made


class Folder:
    """A folder with a name that is known before it exists, so that the guard can remove it whatever happens.

    It lies in ``TMPDIR`` where the login sets it, else in the first of ``/tmp``, ``/var/tmp`` and the home
    folder that has room. It is made when the first file needs a name.
    """

    def __init__(self) -> None:
        name = f"{_PREFIX}{os.getpid()}-{os.urandom(6).hex()}"
        chosen = os.environ.get("TMPDIR")
        bases = [chosen] if chosen else ["/tmp", "/var/tmp", str(Path.home())]  # noqa: S108
        self.places = [Path(base) / name for base in bases]
        self.path = self.places[0]
        self.cache = Path.home() / ".cache/edgekd"
        self.new_venv = self.cache / name
        self._lock: Any = None
        self._broom: Broom | None = None

    def choose(self, size: int) -> None:
        """Settle where ``size`` bytes fit.

        Raises:
            OSError: ``ENOSPC`` when they fit nowhere, or no place can be written; it names the first place.
        """
        failure: OSError | None = None
        for place in self.places:
            base = str(place.parent)
            try:
                free = shutil.disk_usage(base).free
                if free < size:
                    told = f"{size / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free"
                    raise OSError(errno.ENOSPC, told, base)
                tempfile.TemporaryFile(dir=base).close()
            except OSError as error:
                failure = failure or error
            else:
                self.path = place
                return
        assert failure is not None
        raise failure

    def nameless(self) -> Any:
        """A file that no folder lists: it is gone with the last process that has it open."""
        return tempfile.TemporaryFile(dir=str(self.path.parent), buffering=0)

    def named(self, name: str) -> Any:
        """A new file in the folder, its parents made.

        Raises:
            ValueError: the name leads out of the folder.
        """
        parts = Path(name).parts
        if not parts or Path(name).is_absolute() or ".." in parts:
            raise ValueError(f"leads out of the folder: {name!r}")
        if self._lock is None:
            self._broom = Broom(self.path)
            self._lock = locked(self.path)
        path = self.path.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb", buffering=0)

    def remove(self) -> None:
        """Also twice, also when it was never made."""
        for place in (*self.places, self.new_venv):
            shutil.rmtree(place, ignore_errors=True)
        if self._broom:
            self._broom.end()

    def sweep(self) -> None:
        """Remove what an earlier agent left when the power went: our own folders that nobody holds."""
        for base in {place.parent for place in (*self.places, self.new_venv)}:
            with contextlib.suppress(OSError):
                for place in base.glob(f"{_PREFIX}*-*"):
                    if _is_abandoned(place):
                        shutil.rmtree(place, ignore_errors=True)


class Broom:
    """Removes a folder when the process that made this object ends, even when all of ours are killed at once.

    A shell in a session of its own that waits for the end of a pipe.
    """

    def __init__(self, place: Path) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(  # noqa: S603
                ["/bin/sh", "-c", 'read -r _; exec rm -rf -- "$1"', "sh", str(place)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def end(self) -> None:
        if self._process and self._process.stdin:
            self._process.stdin.close()
            self._process.wait()


def locked(place: Path) -> Any:
    """Make a folder and hold it: no other agent takes it for abandoned while the returned file is open."""
    place.mkdir(mode=0o700)
    lock = (place / _LOCK).open("wb")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _is_abandoned(place: Path) -> bool:
    try:
        status = place.lstat()
        young = time.time() - status.st_mtime < _YOUNG_SECONDS
        if place.is_symlink() or status.st_uid != os.getuid() or young:
            return False
        with (place / _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return place.is_dir()
    except OSError:
        return False
    return True
