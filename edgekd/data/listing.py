"""Which files below a folder are images."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from edgekd.errors import DataError, fault

_SUFFIXES = "bmp gif jfif jpeg jpg pbm pgm png pnm ppm tif tiff webp"
SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())


class Listing:
    """Images below a folder, relative to ``root``, and what was passed over."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ignored: Counter[str] = Counter()

    def images(self, folder: str) -> list[str]:
        """Every image at any depth below ``folder``, sorted; hidden files and folders are passed over.

        Links are followed, but no folder is entered twice: a link may lead back up.
        """
        found = []
        entered: set[tuple[int, int]] = set()
        for top, folders, files in os.walk(self.root / folder, followlinks=True, onerror=_refuse):
            place = os.stat(top)  # noqa: PTH116
            if (place.st_dev, place.st_ino) in entered:
                folders.clear()
                continue
            entered.add((place.st_dev, place.st_ino))
            folders[:] = sorted(name for name in folders if not _hidden(name))
            below = os.path.relpath(top, self.root).replace(os.sep, "/")
            prefix = "" if below == "." else f"{below}/"
            found += [prefix + name for name in self._only_images(files)]
        return sorted(found)

    def folders(self, folder: str) -> list[str]:
        entries = _scan(self.root / folder)
        return sorted(entry.name for entry in entries if entry.is_dir() and not _hidden(entry.name))

    def holds_images(self, folder: str) -> bool:
        """Whether images lie directly in ``folder``."""
        return any(entry.is_file() and _is_image(entry.name) for entry in _scan(self.root / folder))

    def _only_images(self, files: list[str]) -> list[str]:
        images = [name for name in files if _is_image(name)]
        self.ignored.update(
            Path(name).suffix.lower() or "no suffix"
            for name in files
            if not _is_image(name) and not _hidden(name)
        )
        return images


def _is_image(name: str) -> bool:
    return not _hidden(name) and os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122  (fast: no objects)


def _hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        _refuse(error)
        raise


def _refuse(error: OSError) -> None:
    raise DataError(fault(str(error.filename), "cannot be read", got=error.strerror)) from None
