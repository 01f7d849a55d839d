"""The teacher's answers on disk: the K largest log-probabilities of every (slot, sample).

After TinyViT (see ``topk.py``). A *slot* is one seed of the augmentation: epoch e uses slot e mod slots, and
the augmentation of a sample depends on (seed, slot, sample) alone, so the stored answer belongs to exactly
the pixels that the student sees. With mixup or cutmix the pixels depend on the whole batch; the data room
then fixes order and mixing by (seed, slot), a sample always meets the same partners, and its index still
names its pixels. That holds for one batch size, which is therefore part of the key.

Files: ``cache.json`` (the key), and for each slot ``slot-0000.logp.npy`` (float16 (samples, K)) and
``slot-0000.class.npy`` (int16 or int32 (samples, K); -1 in the first column marks a row without an answer),
memory-mapped. A slot in its first epoch has ``.part`` names and is renamed when that epoch ends; what a kill
leaves as ``.part`` is done again. A loader that drops its last batch leaves rows empty: they are filled in
the finished files when a later epoch meets them.

Several processes write their own rows of the same files::

    if main_process: cache.begin(slot)
    barrier()
    ...  cache.store(indices, slot, logits)      # every process
    cache.flush(slot)
    barrier()
    if main_process: cache.finish(slot)
    barrier()
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgekd.distill.cache_key import CacheKey, claim_folder
from edgekd.distill.slot_files import EMPTY, SlotFiles, slot_bytes
from edgekd.distill.topk import decode, encode
from edgekd.errors import ModelError, OutputError, PreconditionError, fault


def bytes_needed(samples: int, k: int, slots: int, *, classes: int = 1000) -> int:
    """Size on disk of all slots, bytes."""
    return slots * slot_bytes(samples, k, classes)


class TeacherCache:
    """Opened for one teacher, data set and augmentation; refuses a folder that was made for others.

    Attributes:
        path: the folder.
        classes: how many the teacher answers with.
        top_k: kept for each sample; at most ``classes``.
        slots: distinct augmentations.
    """

    def __init__(
        self, path: Path, key: CacheKey, *, samples: np.ndarray, classes: int, top_k: int, slots: int = 1
    ) -> None:
        """
        Args:
            path: a folder; made when missing.
            key: what the answers depend on.
            samples: int64, the source indices of the training samples.
            classes: of the teacher.
            top_k: to keep; cut to ``classes``.
            slots: distinct augmentations.

        Raises:
            OutputError: another key's cache, not a cache, too little free space, or not writable.
        """
        self.path, self.classes, self.slots = path, classes, slots
        self.top_k = min(top_k, classes)
        samples = np.unique(np.asarray(samples, dtype=np.int64))
        self._count = len(samples)
        self._rows = np.full(int(samples.max(initial=-1)) + 1, -1, dtype=np.int64)
        self._rows[samples] = np.arange(len(samples))
        self._open: dict[int, tuple[np.memmap, np.memmap]] = {}
        claim_folder(path, key)
        self._check_space()

    def _check_space(self) -> None:
        unfinished = sum(not self.complete(slot) for slot in range(self.slots))
        need = bytes_needed(self._count, self.top_k, unfinished, classes=self.classes)
        left = sum(file.stat().st_size for file in self.path.glob("*.part"))  # replaced, so free
        free = shutil.disk_usage(self.path).free + left
        if need > free:
            raise OutputError(
                fault(
                    str(self.path),
                    "too little free space for the teacher cache",
                    got=f"{free / 2**20:.0f} MiB",
                    allowed=f"at least {need / 2**20:.0f} MiB",
                    fix="free space, lower cache_slots or cache_top_k, or set teacher_cache: false",
                )
            )

    def _files(self, slot: int) -> SlotFiles:
        if not 0 <= slot < self.slots:
            raise ValueError(f"slot {slot} of a teacher cache with {self.slots}")
        return SlotFiles(self.path, slot, self._count, self.top_k, self.classes)

    def complete(self, slot: int) -> bool:
        """Whether the slot's first epoch has ended."""
        return self._files(slot).published

    def begin(self, slot: int) -> None:
        """Make the empty files of a slot that is not complete; the main process alone.

        Raises:
            OutputError: the disk is full or not writable.
        """
        self.release(slot)
        self._files(slot).create()

    def release(self, slot: int) -> None:
        """Forget this process's mapping of the slot, so that the next access sees what is on disk by then."""
        self._open.pop(slot, None)

    def flush(self, slot: int) -> None:
        """Write this process's rows to the disk."""
        for array in self._open.get(slot, ()):
            array.flush()

    def finish(self, slot: int) -> None:
        """Give the slot its final names; the main process alone, after every process has flushed.

        Raises:
            OutputError: not writable.
        """
        self._files(slot).publish()

    def missing(self, indices: Tensor | np.ndarray, slot: int) -> np.ndarray:
        """bool ``(batch,)``: which samples have no answer in the slot yet."""
        return self._arrays(slot)[1][self._rows_of(indices), 0] == EMPTY

    def store(self, indices: Tensor | np.ndarray, slot: int, logits: Tensor) -> None:
        """Keep the teacher's answers.

        Args:
            indices: int64 ``(batch,)``, source indices.
            slot: begun or complete.
            logits: ``(batch, classes)``, any float type and device.

        Raises:
            ModelError: the teacher answered NaN or infinity, or with another number of classes.
        """
        rows = self._rows_of(indices)
        if logits.shape != (len(rows), self.classes):
            raise ModelError(
                fault(
                    "teacher",
                    "answers with another shape",
                    got=tuple(logits.shape),
                    allowed=f"({len(rows)}, {self.classes})",
                )
            )
        finite = torch.isfinite(logits).all(dim=1).cpu()
        if not finite.all():
            bad = int(np.asarray(indices)[int((~finite).nonzero()[0])])
            raise ModelError(fault("teacher", "answers NaN or infinity", got=f"sample {bad}"))
        values, classes = encode(logits, self.top_k)
        stored_values, stored_classes = self._arrays(slot)
        stored_values[rows] = values
        stored_classes[rows] = classes  # last: it marks the row as answered

    def lookup(self, indices: Tensor | np.ndarray, slot: int) -> Tensor:
        """Log-probabilities, float32 ``(batch, classes)`` on the CPU.

        Raises:
            PreconditionError: a sample without an answer.
        """
        rows = self._rows_of(indices)
        values, classes = self._arrays(slot)
        kept = classes[rows]
        if (kept[:, 0] == EMPTY).any():
            sample = int(np.asarray(indices)[kept[:, 0] == EMPTY][0])
            raise PreconditionError(
                fault(str(self.path), f"slot {slot} has no answer", got=f"sample {sample}")
            )
        return decode(values[rows], kept, self.classes)

    def _rows_of(self, indices: Tensor | np.ndarray) -> np.ndarray:
        wanted = indices.cpu().numpy() if isinstance(indices, Tensor) else np.asarray(indices)
        inside = (wanted >= 0) & (wanted < len(self._rows))
        rows = self._rows[np.where(inside, wanted, 0)] if len(self._rows) else np.full(len(wanted), -1)
        if not (inside & (rows >= 0)).all():
            sample = int(wanted[~(inside & (rows >= 0))][0])
            raise PreconditionError(fault(str(self.path), "is no training sample of this cache", got=sample))
        return rows

    def _arrays(self, slot: int) -> tuple[np.memmap, np.memmap]:
        if slot not in self._open:
            self._open[slot] = self._files(slot).open()
        return self._open[slot]
