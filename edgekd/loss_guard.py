"""Stops a training that has gone wrong, and says where."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from edgekd.data.source import Dataset
from edgekd.errors import TrainingDivergedError, fault


class LossGuard:
    """Stops on NaN, infinity, or a loss far above where training began."""

    def __init__(self, stage: str, data: Dataset) -> None:
        self.stage, self.data = stage, data
        self.first: list[float] = []

    def check(self, value: float, step: int, indices: Tensor) -> None:
        if math.isfinite(value) and len(self.first) < 20:
            self.first.append(value)
        limit = 10.0 + 100.0 * float(np.median(self.first)) if self.first else math.inf
        if math.isfinite(value) and value <= limit:
            return
        ids = [self.data.train.source.sample_id(int(i)) for i in indices[:8]]
        more = f" and {len(indices) - 8} more" if len(indices) > 8 else ""
        raise TrainingDivergedError(
            fault(f"{self.stage}: step {step}", f"the loss is {value}", got=f"samples {', '.join(ids)}{more}",
                  fix="lower lr, set clip_norm, or look at these samples; --resume starts at the last epoch")
        )  # fmt: skip
