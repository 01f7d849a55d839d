"""The two memory-mapped arrays of one slot of the teacher cache, under a temporary or their final name."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekd.artifact import output_error
from edgekd.distill.topk import class_dtype
from edgekd.errors import OutputError, fault

EMPTY = -1
_HEADER_BYTES = 128


def slot_bytes(samples: int, top_k: int, classes: int) -> int:
    """Size of one slot on disk, bytes."""
    return samples * top_k * (2 + class_dtype(classes).itemsize) + 2 * _HEADER_BYTES


@dataclass(frozen=True)
class SlotFiles:
    """``slot-NNNN.logp.npy`` and ``slot-NNNN.class.npy``; with ``.part`` behind until they are published."""

    folder: Path
    slot: int
    samples: int
    top_k: int
    classes: int

    @property
    def _files(self) -> tuple[tuple[Path, np.dtype], tuple[Path, np.dtype]]:
        stem = f"slot-{self.slot:04d}"
        return (
            (self.folder / f"{stem}.logp.npy", np.dtype(np.float16)),
            (self.folder / f"{stem}.class.npy", class_dtype(self.classes)),
        )

    @property
    def published(self) -> bool:
        return all(file.exists() for file, _ in self._files)

    def create(self) -> None:
        """Empty ``.part`` files with their space reserved; a former attempt's are thrown away.

        Raises:
            OutputError: the disk is full or not writable; nothing is left behind.
        """
        shape = (self.samples, self.top_k)
        for file, dtype in self._files:
            part = _part(file)
            try:
                part.unlink(missing_ok=True)  # a new file, not new content: someone may still map the old one
                array = np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=shape)
                _reserve(part)
                if dtype.kind == "i":
                    array[:, 0] = EMPTY
                array.flush()
            except OSError as error:
                for each, _ in self._files:
                    _part(each).unlink(missing_ok=True)
                raise output_error(part, error) from error

    def open(self) -> tuple[np.memmap, np.memmap]:
        """Both arrays ``(samples, K)``, readable and writable: float16 log-probabilities and class indices.

        Raises:
            OutputError: a file is damaged or not writable.
        """
        published = self.published
        arrays = []
        for file, dtype in self._files:
            name = file if published else _part(file)
            try:
                np.load(name, mmap_mode="r")  # refuses a file that is too short; "r+" would lengthen it
                array = np.load(name, mmap_mode="r+")
            except (ValueError, EOFError):
                array = None
            except OSError as error:
                raise output_error(name, error) from error
            if array is None or array.shape != (self.samples, self.top_k) or array.dtype != dtype:
                raise OutputError(fault(str(name), "is damaged", fix="delete it; the slot is filled anew"))
            arrays.append(array)
        return arrays[0], arrays[1]

    def publish(self) -> None:
        """Rename to the final names.

        Raises:
            OutputError: not writable.
        """
        for file, _ in self._files:
            try:
                _part(file).replace(file)
            except OSError as error:
                raise output_error(file, error) from error


def _part(file: Path) -> Path:
    return file.with_name(file.name + ".part")


def _reserve(file: Path) -> None:
    """Take the disk space now: a write into a mapping of a sparse file on a full disk kills the process."""
    if not hasattr(os, "posix_fallocate"):
        return
    with file.open("rb+") as stream:
        try:
            os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
