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
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from edgekd.data.loader import eval_loader, in_order, train_loader
from edgekd.data.source import Dataset, Progress, has_targets
from edgekd.distill.features import FeatureCapture
from edgekd.distill.loss import DistillationLoss
from edgekd.distill.objectives.base import Outputs
from edgekd.distill.teacher import Teacher
from edgekd.errors import PreconditionError, fault
from edgekd.evaluation import criterion, score, task_of
from edgekd.loss_guard import LossGuard
from edgekd.models.layout import laid_out
from edgekd.preprocess_text import AnyPreprocess, TextPreprocess
from edgekd.quant.qat import QuantizedModel
from edgekd.recipe_stages import TrainRecipe
from edgekd.schedule import (
    augment_seed,
    autocast_dtype,
    batch_size_for,
    build_ema,
    build_optimizer,
    derive_seed,
    learning_rate,
    require_batch,
    seed_everything,
)
from edgekd.train_state import load_checkpoint, save_checkpoint

_log = logging.getLogger(__name__)


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


def network(model: nn.Module) -> nn.Module:
    """The user's own module inside fake-quant."""
    return model.model if isinstance(model, QuantizedModel) else model


def fit(
    model: nn.Module,
    recipe: TrainRecipe,
    *,
    stage: str,
    data: Dataset,
    preprocess: AnyPreprocess,
    teacher: Teacher | None,
    seed: int,
    folder: Path,
    accelerator: Accelerator,
    workers: int | None = None,
    progress: Progress | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> FitResult:
    """Train ``model`` in place; it ends with the best epoch's weights (``keep_best``), EMA applied.

    Args:
        folder: holds ``checkpoint.pt`` after every epoch; an existing one is resumed.
        on_step: called before each step with (steps done, steps in all); stages freeze ranges with it.

    Raises:
        TrainingDivergedError: NaN or exploding loss, with the step and the batch's sample ids.
        PreconditionError: the recipe cannot train this model.
    """
    loop = _Loop(
        model, recipe, stage, data, preprocess, teacher, seed, folder, accelerator, workers, progress
    )
    return loop.run(on_step)


class _Loop:
    def __init__(
        self,
        model: nn.Module,
        recipe: TrainRecipe,
        stage: str,
        data: Dataset,
        preprocess: AnyPreprocess,
        teacher: Teacher | None,
        seed: int,
        folder: Path,
        accelerator: Accelerator,
        workers: int | None,
        progress: Progress | None,
    ) -> None:
        self.recipe, self.stage, self.data, self.preprocess = recipe, stage, data, preprocess
        self.teacher, self.seed, self.folder = teacher, seed, folder
        self.accelerator, self.workers = accelerator, workers
        self.progress: Progress = progress or (lambda what, done, total: None)
        self.batch_size = batch_size_for(recipe, data, accelerator)
        require_batch(model, self.batch_size, stage)
        self.model: nn.Module = model.to(accelerator.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loss = DistillationLoss(recipe.objectives, recipe)
        self._bind_features()
        self.optimizer = build_optimizer(nn.ModuleList([self.model, self.loss.adapters]), recipe)
        self.prepared, self.optimizer = accelerator.prepare(self.model, self.optimizer)
        self.ema = build_ema(self.model, recipe)
        self.guard = LossGuard(stage, data)
        self.criterion = criterion(data.validation)
        self.several = has_targets(data.train.source)
        self._expected: np.ndarray | None = None

    def _bind_features(self) -> None:
        if not self.loss.needs.features:
            return
        if self.teacher is None or self.teacher.is_black_box:
            raise PreconditionError(
                fault(f"{self.stage}.objectives", "the teacher is a black box, whose features cannot be read",
                      got=", ".join(self.loss.layers), fix="use kd")
            )  # fmt: skip
        example = torch.from_numpy(self.preprocess.example(2)).to(self.accelerator.device)
        self.loss.bind(network(self.model), self.teacher.module, example)

    def run(self, on_step: Callable[[int, int], None] | None) -> FitResult:
        history: list[Epoch] = []
        best: dict[str, Any] | None = None
        state = load_checkpoint(self.folder / "checkpoint.pt")
        if state is not None:
            history = [Epoch(**entry) for entry in state["history"]]
            best = state["best"]
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.loss.adapters.load_state_dict(state["adapters"])
            if self.ema is not None:
                self.ema.module.load_state_dict(state["ema"])
        for epoch in range(len(history), self.recipe.epochs):
            entry = self._epoch(epoch, on_step)
            history.append(entry)
            if best is None or not self.recipe.keep_best or entry.val_metric > best["metric"]:
                best = {
                    "metric": entry.val_metric,
                    "epoch": epoch,
                    "model": _cpu_copy(self._trained().state_dict()),
                }
            if self.accelerator.is_main_process:
                save_checkpoint(self.folder / "checkpoint.pt", self._state(history, best))
                self._tell(entry)
            self.accelerator.wait_for_everyone()
        if best is not None:
            self.model.load_state_dict(best["model"])
        self.accelerator.free_memory()  # it keeps every prepared model, optimizer and loader otherwise
        # A model that comes back from disk is laid out plainly: leave it so, or a resumed run would differ.
        self.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.model.eval()
        return FitResult(history, None if best is None else best["epoch"], self.criterion)

    def _state(self, history: list[Epoch], best: dict[str, Any]) -> dict[str, Any]:
        return {
            "history": [asdict(entry) for entry in history],
            "best": best,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "adapters": self.loss.adapters.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
        }

    def _tell(self, entry: Epoch) -> None:
        teacher = "" if self.teacher is None else f" ({entry.teacher_seconds:.1f} s of them the teacher)"
        _log.info(
            f"{self.stage} epoch {entry.epoch + 1}/{self.recipe.epochs}: loss {entry.train_loss:.4f}, "
            f"validation {self.criterion} {100 * entry.val_metric:.2f} %, {entry.seconds:.1f} s{teacher}"
        )

    def _trained(self) -> nn.Module:
        return self.model if self.ema is None else self.ema.module

    def _epoch(self, epoch: int, on_step: Callable[[int, int], None] | None) -> Epoch:
        recipe, started = self.recipe, time.perf_counter()
        slot = epoch % recipe.cache_slots if recipe.teacher_cache else epoch
        seed_everything(derive_seed(self.seed, self.stage, epoch, self.accelerator.process_index))
        loader = self.accelerator.prepare(
            train_loader(
                self.data.train, self.preprocess, recipe.augment, batch_size=self.batch_size,
                seed=augment_seed(self.seed), slot=slot, workers=self.workers,
                order_seed=derive_seed(self.seed, self.stage, "order", epoch) % 2**32,
            )
        )  # fmt: skip
        steps, first = len(loader), epoch * len(loader)
        sums: dict[str, float] = {}
        samples, total, rate = 0, 0.0, 0.0
        self.prepared.train()
        if self.teacher is not None:
            self.teacher.begin_slot(slot, epoch=epoch)
        with ExitStack() as stack:
            captures = self._captures(stack)
            for step, batch in enumerate(loader):
                if on_step is not None:
                    on_step(first + step, steps * recipe.epochs)
                rate = learning_rate(recipe, first + step, steps)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                value, parts = self._step(batch, slot, captures, first + step)
                total += value
                for name, part in parts.items():
                    sums[name] = sums.get(name, 0.0) + part
                samples += len(batch["inputs"]) * self.accelerator.num_processes
                self.progress(f"{self.stage} epoch {epoch + 1}/{recipe.epochs}", step + 1, steps)
        if self.teacher is not None:
            self.teacher.end_slot(slot)
        training_seconds = time.perf_counter() - started
        metric = self._agreed_metric()
        return Epoch(
            epoch=epoch, train_loss=total / steps, val_metric=metric, lr=rate,
            seconds=time.perf_counter() - started, samples_per_second=samples / training_seconds,
            teacher_seconds=0.0 if self.teacher is None else self.teacher.seconds_by_epoch[epoch],
            parts={name: value / steps for name, value in sums.items()},
        )  # fmt: skip

    def _agreed_metric(self) -> float:
        """The first process validates; all go on with its metric and its buffers.

        Batch norms and ranges saw other samples in each process, and the best epoch must be one for all.
        """
        if self.accelerator.num_processes == 1:
            return self._validate()
        averaged = [] if self.ema is None else self.ema.module.buffers()
        for buffer in (*self.model.buffers(), *averaged):
            broadcast(buffer)
        metric = self._validate() if self.accelerator.is_main_process else 0.0
        return float(broadcast(torch.tensor(metric, dtype=torch.float64, device=self.accelerator.device)))

    def _captures(self, stack: ExitStack) -> tuple[FeatureCapture, FeatureCapture] | None:
        if not self.loss.pairs or self.teacher is None:
            return None
        student = FeatureCapture(network(self.model), [ours for ours, _ in self.loss.pairs])
        teacher = FeatureCapture(self.teacher.module, [theirs for _, theirs in self.loss.pairs])
        return stack.enter_context(student), stack.enter_context(teacher)

    def _autocast(self) -> Any:
        dtype = autocast_dtype(self.recipe, self.accelerator.device)
        return nullcontext() if dtype is None else torch.autocast(self.accelerator.device.type, dtype)

    def _tokens(self, inputs: Tensor) -> Tensor | None:
        """Bool ``(batch, tokens)``, false on padding; None for images."""
        own = self.preprocess
        return inputs != own.pad_id if isinstance(own, TextPreprocess) else None

    def _step(
        self,
        batch: dict[str, Tensor],
        slot: int,
        captures: tuple[FeatureCapture, FeatureCapture] | None,
        step: int,
    ) -> tuple[float, dict[str, float]]:
        inputs = laid_out(batch["inputs"])
        with self._autocast():
            answers = None
            if self.teacher is not None and (self.loss.needs.teacher_logits or captures is not None):
                answers = self.teacher.answers(inputs, batch["indices"], slot)
            teacher_features = captures[1].take() if captures is not None else []
            logits = self.prepared(inputs)
            total, parts = self.loss(
                Outputs(
                    student_logits=logits, teacher_logits=answers, labels=batch["labels"],
                    targets=batch.get("targets"), several=self.several, teacher_features=teacher_features,
                    student_features=captures[0].take() if captures is not None else [],
                    tokens=self._tokens(inputs),
                )
            )  # fmt: skip
        value = float(total.detach())
        self.guard.check(value, step, batch["indices"])
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(total)
        if self.accelerator.num_processes > 1:  # the wrapper averages the model's gradients alone
            for parameter in self.loss.adapters.parameters():
                if parameter.grad is not None:
                    parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
        if self.recipe.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.model, step=step)
        return value, {name: float(part) for name, part in parts.items()}

    @torch.no_grad()
    def _validate(self) -> float:
        model = self._trained().eval()
        split = self.data.validation
        loader = eval_loader(split, self.preprocess, batch_size=256, workers=self.workers, by_length=True)
        answers = predict(model, loader, self.accelerator.device).numpy()
        if self.criterion != "agreement":
            return float(score(answers, split, None)[self.criterion])
        if self.teacher is None:
            raise PreconditionError(fault(self.stage, "neither labels nor a teacher to validate against"))
        if self._expected is None:
            self._expected = predict(self.teacher, loader, self.accelerator.device).numpy()
        return task_of(split).agreement(answers, self._expected, several=self.several)


@torch.no_grad()
def predict(model: Callable[[Tensor], Tensor], loader: Any, device: torch.device) -> Tensor:
    """Logits ``(n, classes)`` float32 on the CPU, in the order of the loader's split."""
    answers = []
    for batch in loader:
        inputs = laid_out(batch["inputs"].to(device))
        answers.append(model(inputs).float().cpu())
    return torch.from_numpy(in_order(torch.cat(answers).numpy(), loader))


def _cpu_copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: copy.deepcopy(tensor.detach().cpu()) for name, tensor in state.items()}
