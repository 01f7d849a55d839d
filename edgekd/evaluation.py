"""Metrics on a split, of a torch model or of an ONNX file: the same samples, the same preprocessing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekd.cpu import usable_cores
from edgekd.data.loader import eval_loader, in_order
from edgekd.data.source import Progress, Split, is_text
from edgekd.models.layout import laid_out
from edgekd.preprocess_text import AnyPreprocess
from edgekd.profiles.session import open_session, run_batches
from edgekd.tasks import IMAGE, TEXT, Task


def torch_logits(
    model: Callable[[Tensor], Tensor],
    split: Split,
    preprocess: AnyPreprocess,
    device: torch.device,
    *,
    what: str = "evaluate",
    workers: int | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Logits ``(n, classes)`` float32 of every sample of ``split``, in its order."""

    def forward(inputs: np.ndarray) -> np.ndarray:
        tensor = laid_out(torch.from_numpy(inputs).to(device))
        with torch.no_grad():
            return model(tensor).float().cpu().numpy()

    return _logits(forward, split, preprocess, what, workers, progress)


def onnx_logits(
    path: Path,
    split: Split,
    preprocess: AnyPreprocess,
    *,
    threads: int = 0,
    what: str = "evaluate ONNX",
    workers: int | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """As :func:`torch_logits`, of the file as ONNX Runtime runs it; ``threads=0`` uses every core."""
    session = open_session(path, threads=threads or usable_cores())
    return _logits(lambda inputs: run_batches(session, inputs), split, preprocess, what, workers, progress)


def _logits(
    forward: Callable[[np.ndarray], np.ndarray],
    split: Split,
    preprocess: AnyPreprocess,
    what: str,
    workers: int | None,
    progress: Progress | None,
) -> np.ndarray:
    loader = eval_loader(split, preprocess, batch_size=128, workers=workers, by_length=True)
    answers = []
    for done, batch in enumerate(loader):
        answers.append(forward(batch["inputs"].numpy()))
        if progress is not None:
            progress(what, done + 1, len(loader))
    return in_order(np.concatenate(answers), loader)


def score(logits: np.ndarray, split: Split, teacher_logits: np.ndarray | None) -> dict[str, Any]:
    """The task's metrics, such as top1, agreement, ece, nll; None where there are no labels or no teacher."""
    truth = split.targets if split.targets is not None else split.labels
    return task_of(split).metrics(logits, truth if len(split) and split.labelled else None, teacher_logits)


def task_of(split: Split) -> Task:
    """The task that the samples of ``split`` are for."""
    return TEXT if is_text(split.source) else IMAGE


def criterion(split: Split) -> str:
    """The metric that models are compared by on ``split``; agreement with the teacher without labels."""
    return task_of(split).criterion(several=split.targets is not None) if split.labelled else "agreement"
