"""What an epoch is worth: the criterion on the validation split, the same number in every process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast
from torch import Tensor, nn

from edgekd.data.loader import eval_loader, in_order
from edgekd.data.source import has_targets
from edgekd.errors import PreconditionError, fault
from edgekd.evaluation import criterion, score, task_of
from edgekd.models.layout import laid_out
from edgekd.training import Training


class Validation:
    """Attributes:
    criterion: the task's own, or ``agreement`` with the teacher where there are no labels.
    """

    def __init__(self, training: Training) -> None:
        self.training = training
        self.criterion = criterion(training.data.validation)
        self._expected: np.ndarray | None = None

    def __call__(self, model: nn.Module, buffers: Iterable[Tensor]) -> float:
        """The first process validates; all go on with its metric and its buffers.

        Batch norms and ranges saw other samples in each process, and the best epoch must be one for all.

        Raises:
            PreconditionError: neither labels nor a teacher.
        """
        accelerator = self.training.accelerator
        if accelerator.num_processes == 1:
            return self._metric(model)
        for buffer in buffers:
            broadcast(buffer)
        metric = self._metric(model) if accelerator.is_main_process else 0.0
        return float(broadcast(torch.tensor(metric, dtype=torch.float64, device=accelerator.device)))

    @torch.no_grad()
    def _metric(self, model: nn.Module) -> float:
        training, split = self.training, self.training.data.validation
        device = training.accelerator.device
        loader = eval_loader(
            split, training.preprocess, batch_size=256, workers=training.workers, by_length=True
        )
        answers = predict(model.eval(), loader, device).numpy()
        if self.criterion != "agreement":
            return float(score(answers, split, None)[self.criterion])
        if training.teacher is None:
            raise PreconditionError(fault(training.stage, "neither labels nor a teacher to validate against"))
        if self._expected is None:
            self._expected = predict(training.teacher, loader, device).numpy()
        several = has_targets(training.data.train.source)
        return task_of(split).agreement(answers, self._expected, several=several)


@torch.no_grad()
def predict(model: Callable[[Tensor], Tensor], loader: Any, device: torch.device) -> Tensor:
    """Logits ``(n, classes)`` float32 on the CPU, in the order of the loader's split."""
    answers = []
    for batch in loader:
        inputs = laid_out(batch["inputs"].to(device))
        answers.append(model(inputs).float().cpu())
    return torch.from_numpy(in_order(torch.cat(answers).numpy(), loader))
