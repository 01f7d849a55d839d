"""The one training loop: every stage that trains calls :func:`fit`.

Each epoch is a function of (recipe, seed, epoch number, state at its start): data order, augmentation and
dropout are seeded from those, so a run that is killed and resumed at the last finished epoch ends in the
same bytes on a CPU. One process or several, CPU or GPU: accelerate decides from how it was launched.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.data.loader import train_loader
from edgekd.recipe_stages import TrainRecipe
from edgekd.schedule import (
    augment_seed,
    batch_size_for,
    derive_seed,
    learning_rate,
    require_batch,
    seed_everything,
)
from edgekd.train_state import load_checkpoint, save_checkpoint
from edgekd.train_step import Step, network
from edgekd.train_validate import Validation, predict
from edgekd.training import Training

_log = logging.getLogger(__name__)

# Called before each step with (steps done, steps in all).
OnStep = Callable[[int, int], None]


@dataclass
class Epoch:
    """One line of a stage's history."""

    epoch: int
    train_loss: float
    val_metric: float
    lr: float
    seconds: float
    samples_per_second: float
    teacher_seconds: float
    parts: dict[str, float] = field(default_factory=dict)


@dataclass
class FitResult:
    """``criterion`` says what ``val_metric`` is: the task's, or agreement with the teacher without labels."""

    history: list[Epoch]
    best_epoch: int | None
    criterion: str


def fit(
    model: nn.Module, recipe: TrainRecipe, training: Training, *, on_step: OnStep | None = None
) -> FitResult:
    """Train ``model`` in place; it ends with the best epoch's weights (``keep_best``), EMA applied.

    Args:
        on_step: stages freeze ranges with it.

    Raises:
        TrainingDivergedError: NaN or exploding loss, with the step and the batch's sample ids.
        PreconditionError: the recipe cannot train this model.
    """
    return _Loop(model, recipe, training, on_step).run()


class _Loop:
    def __init__(
        self, model: nn.Module, recipe: TrainRecipe, training: Training, on_step: OnStep | None
    ) -> None:
        self.recipe, self.training, self.on_step = recipe, training, on_step
        self.accelerator = training.accelerator
        self.batch_size = batch_size_for(recipe, training.data, self.accelerator)
        require_batch(model, self.batch_size, training.stage)
        self.model: nn.Module = model.to(self.accelerator.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.step = Step(self.model, recipe, training)
        self.validate = Validation(training)

    def run(self) -> FitResult:
        history: list[Epoch] = []
        best: dict[str, Any] | None = None
        file = self.training.folder / "checkpoint.pt"
        state = load_checkpoint(file)
        if state is not None:
            history = [Epoch(**entry) for entry in state["history"]]
            best = state["best"]
            self.step.restore(state)
        for epoch in range(len(history), self.recipe.epochs):
            entry = self._epoch(epoch)
            history.append(entry)
            if best is None or not self.recipe.keep_best or entry.val_metric > best["metric"]:
                weights = _cpu_copy(self.step.trained().state_dict())
                best = {"metric": entry.val_metric, "epoch": epoch, "model": weights}
            if self.accelerator.is_main_process:
                told = {"history": [asdict(each) for each in history], "best": best}
                save_checkpoint(file, {**told, **self.step.state()})
                self._tell(entry)
            self.accelerator.wait_for_everyone()
        if best is not None:
            self.model.load_state_dict(best["model"])
        self.accelerator.free_memory()  # it keeps every prepared model, optimizer and loader otherwise
        # A model that comes back from disk is laid out plainly: leave it so, or a resumed run would differ.
        self.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.model.eval()
        return FitResult(history, None if best is None else best["epoch"], self.validate.criterion)

    def _tell(self, entry: Epoch) -> None:
        training = self.training
        teacher = "" if training.teacher is None else f" ({entry.teacher_seconds:.1f} s of them the teacher)"
        _log.info(
            f"{training.stage} epoch {entry.epoch + 1}/{self.recipe.epochs}: loss {entry.train_loss:.4f}, "
            f"validation {self.validate.criterion} {100 * entry.val_metric:.2f} %, {entry.seconds:.1f} s{teacher}"
        )

    def _epoch(self, epoch: int) -> Epoch:
        recipe, training, started = self.recipe, self.training, time.perf_counter()
        slot = epoch % recipe.cache_slots if recipe.teacher_cache else epoch
        seed_everything(derive_seed(training.seed, training.stage, epoch, self.accelerator.process_index))
        loader = self.accelerator.prepare(
            train_loader(
                training.data.train, training.preprocess, recipe.augment, batch_size=self.batch_size,
                seed=augment_seed(training.seed), slot=slot, workers=training.workers,
                order_seed=derive_seed(training.seed, training.stage, "order", epoch) % 2**32,
            )
        )  # fmt: skip
        steps, first = len(loader), epoch * len(loader)
        sums: dict[str, float] = {}
        samples, total, rate = 0, 0.0, 0.0
        self.step.prepared.train()
        if training.teacher is not None:
            training.teacher.begin_slot(slot, epoch=epoch)
        with ExitStack() as stack:
            captures = self.step.captures(stack)
            for number, batch in enumerate(loader):
                if self.on_step is not None:
                    self.on_step(first + number, steps * recipe.epochs)
                rate = learning_rate(recipe, first + number, steps)
                value, parts = self.step(batch, slot, captures, first + number, rate)
                total += value
                for name, part in parts.items():
                    sums[name] = sums.get(name, 0.0) + part
                samples += len(batch["inputs"]) * self.accelerator.num_processes
                training.tell(f"{training.stage} epoch {epoch + 1}/{recipe.epochs}", number + 1, steps)
        if training.teacher is not None:
            training.teacher.end_slot(slot)
        training_seconds = time.perf_counter() - started
        metric = self.validate(self.step.trained(), self.step.buffers())
        return Epoch(
            epoch=epoch, train_loss=total / steps, val_metric=metric, lr=rate,
            seconds=time.perf_counter() - started, samples_per_second=samples / training_seconds,
            teacher_seconds=0.0 if training.teacher is None else training.teacher.seconds_by_epoch[epoch],
            parts={name: value / steps for name, value in sums.items()},
        )  # fmt: skip


def _cpu_copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: copy.deepcopy(tensor.detach().cpu()) for name, tensor in state.items()}


__all__ = ["Epoch", "FitResult", "Training", "fit", "network", "predict"]
