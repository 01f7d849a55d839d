"""What a stage is: ``requires -> apply -> ensures``, and ``attach`` for a model that comes back from disk.

A stage knows nothing of its neighbours. After each stage the pipeline runs ``ensures`` of every earlier
one again, so what pruning promised still holds after quantization.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from edgekd.data.loader import eval_loader
from edgekd.data.source import Dataset, Progress, Split
from edgekd.distill.teacher import Teacher
from edgekd.preprocess_text import AnyPreprocess
from edgekd.training import Training


@dataclass
class StageContext:
    """What the run gives to a stage.

    Attributes:
        name: unique in the run, such as ``prune``; keys seeds and messages.
        folder: the stage's own folder; scratch files there are removed when it is done.
        cache_folder: where teachers' answers are stored, shared by the stages.
        classes: of teacher and student.
        scheme: name of the quantization scheme of the first device.
        device: that device's name.
    """

    name: str
    folder: Path
    cache_folder: Path
    data: Dataset
    preprocess: AnyPreprocess
    teacher: nn.Module | None
    classes: int
    seed: int
    scheme: str
    accelerator: Accelerator
    workers: int | None = None
    progress: Progress | None = None
    device: str = "cpu"

    @property
    def example(self) -> Tensor:
        """Two samples on the CPU, zeros or valid token ids: structure depends on shapes alone."""
        return torch.from_numpy(self.preprocess.example(2))

    def training(
        self, teacher: Teacher | None, *, stage: str | None = None, folder: Path | None = None
    ) -> Training:
        """What this stage trains with; a stage that trains several times names each and gives it a folder."""
        return Training(
            stage=stage or self.name, data=self.data, preprocess=self.preprocess, seed=self.seed,
            folder=folder or self.folder, accelerator=self.accelerator, teacher=teacher,
            workers=self.workers, progress=self.progress,
        )  # fmt: skip

    def calibration(self, samples: int) -> list[Tensor]:
        """Batches of up to ``samples`` training samples, spread evenly, as the deployed model sees them."""
        indices = self.data.train.indices
        step = max(1, len(indices) // samples)
        split = Split("calibration", self.data.train.source, indices[::step][:samples])
        loader = eval_loader(split, self.preprocess, batch_size=min(64, samples), workers=0)
        return [batch["inputs"] for batch in loader]


@dataclass
class StageOutcome:
    """A stage's model and what it tells; ``facts`` goes to ``metrics.json`` and lets ``attach`` rebuild."""

    model: nn.Module
    facts: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Stage(Protocol):
    name: str

    def requires(self, model: nn.Module, context: StageContext) -> None:
        """
        Raises:
            PreconditionError: the stage cannot run on this model; said before any training.
        """

    def apply(self, model: nn.Module, context: StageContext) -> StageOutcome: ...

    def attach(self, model: nn.Module, facts: dict[str, Any], context: StageContext) -> nn.Module:
        """Only the structure that ``apply`` makes, ready for ``load_state_dict``."""

    def ensures(self, model: nn.Module) -> None:
        """
        Raises:
            PostconditionError: what the stage promised does not hold.
        """
