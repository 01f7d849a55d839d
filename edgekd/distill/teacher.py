"""The frozen teacher: its answers, from the network or from the cache, and the time they take."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from time import perf_counter

import torch
import torch.distributed as dist
from torch import Tensor, nn

from edgekd.artifact import sha256_file
from edgekd.distill.objectives.base import Needs
from edgekd.distill.teacher_cache import TeacherCache
from edgekd.errors import ModelError, PreconditionError, RecipeError, fault


def fingerprint(module: nn.Module) -> str:
    """sha256 of what the module computes with, as hex.

    That is every entry of its state (name, type, shape, bytes; sorted by name) and the type of every
    submodule. A module that runs a file (attribute ``onnx_path``, or ``path`` where it has no state of its
    own) is that file's bytes.

    Raises:
        ModelError: neither state nor a file: nothing tells it from another teacher.
    """
    state = module.state_dict()
    path = getattr(module, "onnx_path", None) or (None if state else getattr(module, "path", None))
    if path is not None:
        return sha256_file(Path(path))
    if not state:
        raise ModelError(
            fault("teacher", "has no weights to identify it by", got=type(module).__name__,
                  fix="set teacher_cache: false")
        )  # fmt: skip
    digest = hashlib.sha256()
    for name, each in sorted(module.named_modules()):
        digest.update(f"{name}={type(each).__name__};".encode())
    for name, value in sorted(state.items()):
        if not isinstance(value, Tensor):
            digest.update(f"{name}={value!r};".encode())
            continue
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class Teacher:
    """Wraps a network and freezes it: eval mode, no gradients. The network must not be the student itself.

    Attributes:
        module: the network; capture its features around :meth:`answers`.
        cache: where answers are kept, or None.
        seconds: spent in :meth:`answers`, by the host's clock. On an accelerator without a cache the calls
            are only queued, and their time shows up where the student waits for them.
        seconds_by_epoch: the same by the ``epoch`` of :meth:`begin_slot`.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        needs: Needs | None = None,
        cache: TeacherCache | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        """
        Args:
            module: images to logits.
            needs: of the loss; checked against the cache.
            cache: of this module's answers.
            autocast: the precision to run in; None leaves the surrounding precision as it is.

        Raises:
            RecipeError: a cache, and a loss that reads features.
        """
        if cache is not None and needs is not None and needs.features:
            what = "true with an objective that reads features; the cache holds answers only"
            raise RecipeError(fault("teacher_cache", what, fix="set teacher_cache: false"))
        self.module = module.eval().requires_grad_(False)
        self.cache = cache
        self.seconds = 0.0
        self.seconds_by_epoch: dict[int, float] = defaultdict(float)
        self._autocast = autocast
        self._epoch = 0

    @property
    def is_black_box(self) -> bool:
        """Whether the module has no parameters, so that its answers are all there is to learn from."""
        return next(self.module.parameters(), None) is None

    def fingerprint(self) -> str:
        """See :func:`fingerprint`."""
        return fingerprint(self.module)

    def begin_slot(
        self,
        slot: int,
        *,
        epoch: int | None = None,
        main_process: bool | None = None,
        barrier: Callable[[], None] | None = None,
    ) -> None:
        """Every process, before the first batch of an epoch.

        Args:
            slot: of the augmentation.
            epoch: under which the time is counted; None: one more than the last.
            main_process: whether this process makes the files; None: the first of ``torch.distributed``.
            barrier: waits for all processes; None: that of ``torch.distributed``, if it runs.

        Raises:
            OutputError: the disk is full or not writable.
        """
        self._epoch = epoch if epoch is not None else max(self.seconds_by_epoch, default=-1) + 1
        if self.cache is None:
            return
        if _is_main(main_process) and not self.cache.complete(slot):
            self.cache.begin(slot)
        (barrier or _barrier)()
        self.cache.release(slot)

    def end_slot(
        self, slot: int, *, main_process: bool | None = None, barrier: Callable[[], None] | None = None
    ) -> None:
        """Every process, after the last batch of an epoch: what was computed in it counts from here on.

        Raises:
            OutputError: not writable.
        """
        if self.cache is None:
            return
        self.cache.flush(slot)
        (barrier or _barrier)()
        if _is_main(main_process) and not self.cache.complete(slot):
            self.cache.finish(slot)
        (barrier or _barrier)()

    def answers(self, inputs: Tensor, indices: Tensor | None = None, slot: int = 0) -> Tensor:
        """Logits, or with a cache log-probabilities, ``(batch, classes)`` on the inputs' device.

        With a cache, only the samples that it lacks go through the network, and every answer is returned as
        it was stored: a run that is repeated or resumed with a full cache sees the same numbers as the run
        that filled it.

        Args:
            inputs: ``(batch, channels, height, width)``.
            indices: int64 ``(batch,)``, source indices; needed with a cache.
            slot: of the augmentation that made ``inputs``.

        Raises:
            ModelError: the teacher answered NaN or infinity (checked with a cache alone).
            PreconditionError: a cache, and no indices or a sample that is not the cache's.
        """
        start = perf_counter()
        try:
            return self(inputs) if self.cache is None else self._cached(self.cache, inputs, indices, slot)
        finally:
            elapsed = perf_counter() - start
            self.seconds += elapsed
            self.seconds_by_epoch[self._epoch] += elapsed

    def _cached(self, cache: TeacherCache, inputs: Tensor, indices: Tensor | None, slot: int) -> Tensor:
        if indices is None:
            raise PreconditionError(fault("teacher_cache", "needs the batch's sample indices"))
        indices = indices.cpu()
        missing = torch.from_numpy(cache.missing(indices, slot))
        if missing.all():
            cache.store(indices, slot, self(inputs))
        elif missing.any():
            cache.store(indices[missing], slot, self(inputs[missing.to(inputs.device)]))
        return cache.lookup(indices, slot).to(inputs.device)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Logits ``(batch, classes)`` from the network, never from the cache; not counted in ``seconds``."""
        if self.module.training:  # a loop that calls train() on a tree of modules may have reached it
            self.module.eval()
        precision: AbstractContextManager[object] = nullcontext()
        if self._autocast is not None:
            precision = torch.autocast(inputs.device.type, dtype=self._autocast)
        with torch.no_grad(), precision:
            return self.module(inputs)


def _is_main(stated: bool | None) -> bool:
    if stated is not None:
        return stated
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


def _barrier() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
