"""The one folder on the board: found with room, locked while anybody lives, removed by whoever is last."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from pathlib import Path

_PREFIX = "edgekd-"
_LOCK = "lock"
_YOUNG_SECONDS = 600  # a folder without a lock may be one that is just being made


class Folder:
    """A folder with a name that is known before it exists, so that the guard can remove it whatever happens.

    It lies in ``TMPDIR`` where the login sets it, else in the first of ``/tmp``, ``/var/tmp`` and the home
    folder that has room.
    """

    def __init__(self) -> None:
        name = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(6)}"
        chosen = os.environ.get("TMPDIR")
        bases = [chosen] if chosen else ["/tmp", "/var/tmp", str(Path.home())]  # noqa: S108
        self.places = [Path(base) / name for base in bases]
        self.path = self.places[0]

    def make(self, size: int) -> None:
        """Create the folder where ``size`` bytes fit.

        Raises:
            OSError: ``ENOSPC`` when they fit nowhere, or no place can be written; it names the place.
        """
        failure: OSError | None = None
        for place in self.places:
            try:
                free = shutil.disk_usage(place.parent).free
                if free < size:
                    raise OSError(
                        28, f"{size / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free", str(place.parent)
                    )
                place.mkdir(mode=0o700)
                self.path = place
                self._lock = (place / _LOCK).open("wb")
                fcntl.flock(self._lock, fcntl.LOCK_EX)
                return
            except OSError as error:
                failure = failure or error
        assert failure is not None
        raise failure

    def file(self, name: str) -> Path:
        """Path of a file in the folder, its parents made.

        Raises:
            ValueError: the name leads out of the folder.
        """
        parts = Path(name).parts
        if not parts or Path(name).is_absolute() or ".." in parts:
            raise ValueError(f"leads out of the folder: {name!r}")
        path = self.path.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def remove(self) -> None:
        """Also twice, also when it was never made."""
        for place in self.places:
            shutil.rmtree(place, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what an earlier agent left when the power went: our own folders that nobody holds."""
        for base in {place.parent for place in self.places}:
            with contextlib.suppress(OSError):
                for place in base.glob(f"{_PREFIX}*-*"):
                    if _is_abandoned(place):
                        shutil.rmtree(place, ignore_errors=True)


def _is_abandoned(place: Path) -> bool:
    try:
        status = place.lstat()
        if (
            place.is_symlink()
            or status.st_uid != os.getuid()
            or time.time() - status.st_mtime < _YOUNG_SECONDS
        ):
            return False
        with (place / _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return place.is_dir()
    except OSError:
        return False
    return True
