"""What a training works on and with, the recipe aside: one value that its parts share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from edgekd.data.source import Dataset, Progress
from edgekd.distill.teacher import Teacher
from edgekd.preprocess_text import AnyPreprocess


@dataclass(frozen=True)
class Training:
    """One training of one stage.

    Attributes:
        stage: its name in the run; keys seeds and messages.
        folder: holds ``checkpoint.pt`` after every epoch; an existing one is resumed.
        teacher: None where the labels alone teach.
        workers: processes that load data; None chooses.
    """

    stage: str
    data: Dataset
    preprocess: AnyPreprocess
    seed: int
    folder: Path
    accelerator: Accelerator
    teacher: Teacher | None = None
    workers: int | None = None
    progress: Progress | None = None

    def tell(self, what: str, done: int, total: int) -> None:
        """Progress, where somebody listens."""
        if self.progress is not None:
            self.progress(what, done, total)
