"""Which image files were already decoded and hashed, so that a large folder is checked once.

An SQLite file in the user's cache, keyed by folder, path, size and modification time. It only saves time:
where it cannot be read or written, everything is checked again.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

_LOG = logging.getLogger(__name__)
_TABLE = """create table if not exists sound (
    folder blob, path blob, size integer, mtime_ns integer, sha256 blob, primary key (folder, path)
) without rowid"""

Stamp = tuple[int, int]
"""Size in bytes, modification time in nanoseconds."""


def recall(file: Path, folder: bytes) -> dict[bytes, tuple[Stamp, bytes]]:
    """Path below ``folder`` to the stamp and sha256 it had when it decoded."""
    if not file.is_file():
        return {}
    try:
        with closing(sqlite3.connect(file, timeout=10)) as database:
            rows = database.execute(
                "select path, size, mtime_ns, sha256 from sound where folder = ?", (folder,)
            )
            return {path: ((size, mtime_ns), digest) for path, size, mtime_ns, digest in rows}
    except sqlite3.Error as error:
        _LOG.debug("%s: %s", file, error)
        return {}


def remember(file: Path, folder: bytes, sound: Iterable[tuple[bytes, Stamp, bytes]]) -> None:
    """Store what decoded: path, stamp and sha256 of each."""
    rows = [(folder, path, size, mtime_ns, digest) for path, (size, mtime_ns), digest in sound]
    if not rows:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            _store(file, rows)
        except sqlite3.DatabaseError as error:
            if "not a database" not in str(error) and "malformed" not in str(error):
                raise
            file.unlink()
            _store(file, rows)
    except (sqlite3.Error, OSError) as error:
        _LOG.debug("%s: %s", file, error)


def _store(file: Path, rows: list[tuple[bytes, bytes, int, int, bytes]]) -> None:
    with closing(sqlite3.connect(file, timeout=10)) as database, database:
        database.execute(_TABLE)
        database.executemany("insert or replace into sound values (?, ?, ?, ?, ?)", rows)
