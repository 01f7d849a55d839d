"""One step of the training loop: both networks' answers, the loss, its gradients, the optimizer, the average."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.data.source import has_targets
from edgekd.distill.features import FeatureCapture
from edgekd.distill.loss import DistillationLoss
from edgekd.distill.objectives.base import Outputs
from edgekd.errors import PreconditionError, fault
from edgekd.loss_guard import LossGuard
from edgekd.models.layout import laid_out
from edgekd.preprocess_text import TextPreprocess
from edgekd.quant.qat import QuantizedModel
from edgekd.recipe_stages import TrainRecipe
from edgekd.schedule import autocast_dtype, build_ema, build_optimizer
from edgekd.training import Training

Captures = tuple[FeatureCapture, FeatureCapture] | None


def network(model: nn.Module) -> nn.Module:
    """The user's own module inside fake-quant."""
    return model.model if isinstance(model, QuantizedModel) else model


class Step:
    """Takes a batch and moves the model. It holds what changes with it: adapters, optimizer, weight average.

    Raises:
        PreconditionError: an objective reads features that the teacher does not show.
    """

    def __init__(self, model: nn.Module, recipe: TrainRecipe, training: Training) -> None:
        self.model, self.recipe, self.training = model, recipe, training
        self.loss = DistillationLoss(recipe.objectives, recipe)
        self._bind_features()
        optimizer = build_optimizer(nn.ModuleList([model, self.loss.adapters]), recipe)
        self.prepared, self.optimizer = training.accelerator.prepare(model, optimizer)
        self.ema = build_ema(model, recipe)
        self.guard = LossGuard(training.stage, training.data)
        self.several = has_targets(training.data.train.source)

    def trained(self) -> nn.Module:
        """The model that is validated and kept: the average where there is one."""
        return self.model if self.ema is None else self.ema.module

    def buffers(self) -> list[Tensor]:
        """Of the model and of its average."""
        averaged = () if self.ema is None else self.ema.module.buffers()
        return [*self.model.buffers(), *averaged]

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` goes on from."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "adapters": self.loss.adapters.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.loss.adapters.load_state_dict(state["adapters"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])

    def captures(self, stack: ExitStack) -> Captures:
        """Hooks on the layers that the objectives compare, the student's and the teacher's, until ``stack`` ends."""
        teacher = self.training.teacher
        if not self.loss.pairs or teacher is None:
            return None
        ours = FeatureCapture(network(self.model), [ours for ours, _ in self.loss.pairs])
        theirs = FeatureCapture(teacher.module, [theirs for _, theirs in self.loss.pairs])
        return stack.enter_context(ours), stack.enter_context(theirs)

    def __call__(
        self, batch: dict[str, Tensor], slot: int, captures: Captures, step: int, rate: float
    ) -> tuple[float, dict[str, float]]:
        """The loss of the batch and its weighted parts.

        Args:
            slot: of the augmentation; stored answers of the teacher belong to one.
            step: number of steps before this one.
            rate: the learning rate.

        Raises:
            TrainingDivergedError: NaN or exploding loss, with the step and the batch's sample ids.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total, parts = self._loss(batch, slot, captures)
        value = float(total.detach())
        self.guard.check(value, step, batch["indices"])
        self.optimizer.zero_grad(set_to_none=True)
        accelerator = self.training.accelerator
        accelerator.backward(total)
        if accelerator.num_processes > 1:  # the wrapper averages the model's gradients alone
            for parameter in self.loss.adapters.parameters():
                if parameter.grad is not None:
                    parameter.grad = accelerator.reduce(parameter.grad, "mean")
        if self.recipe.clip_norm is not None:
            accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.model, step=step)
        return value, {name: float(part) for name, part in parts.items()}

    def _loss(
        self, batch: dict[str, Tensor], slot: int, captures: Captures
    ) -> tuple[Tensor, dict[str, Tensor]]:
        inputs, teacher = laid_out(batch["inputs"]), self.training.teacher
        with self._autocast():
            answers = None
            if teacher is not None and (self.loss.needs.teacher_logits or captures is not None):
                answers = teacher.answers(inputs, batch["indices"], slot)
            teacher_features = captures[1].take() if captures is not None else []
            logits = self.prepared(inputs)
            return self.loss(
                Outputs(
                    student_logits=logits, teacher_logits=answers, labels=batch["labels"],
                    targets=batch.get("targets"), several=self.several, teacher_features=teacher_features,
                    student_features=captures[0].take() if captures is not None else [],
                    tokens=self._tokens(inputs),
                )
            )  # fmt: skip

    def _bind_features(self) -> None:
        if not self.loss.needs.features:
            return
        training = self.training
        if training.teacher is None or training.teacher.is_black_box:
            raise PreconditionError(
                fault(f"{training.stage}.objectives", "the teacher is a black box, whose features cannot be read",
                      got=", ".join(self.loss.layers), fix="use kd")
            )  # fmt: skip
        example = torch.from_numpy(training.preprocess.example(2)).to(training.accelerator.device)
        self.loss.bind(network(self.model), training.teacher.module, example)

    def _autocast(self) -> Any:
        device = self.training.accelerator.device
        dtype = autocast_dtype(self.recipe, device)
        return nullcontext() if dtype is None else torch.autocast(device.type, dtype)

    def _tokens(self, inputs: Tensor) -> Tensor | None:
        """Bool ``(batch, tokens)``, false on padding; None for images."""
        own = self.training.preprocess
        return inputs != own.pad_id if isinstance(own, TextPreprocess) else None
