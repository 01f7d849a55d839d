"""What a finished step of a run leaves behind: its metrics on the test split, its model, its mark in ``run.json``."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from edgekd.artifact import RunDirectory, write_json
from edgekd.data.source import Dataset, Progress
from edgekd.evaluation import score, torch_logits
from edgekd.models.cost import measure_cost
from edgekd.models.loaded import LoadedModel
from edgekd.store import baked, load_logits, read_metrics, save_logits, save_stage
from edgekd.tasks.guessing import commonest_share, guessing_doubt

_log = logging.getLogger(__name__)


class Records:
    """The folders ``stages/NN-name`` of one run; of several processes only the main one writes."""

    def __init__(
        self,
        run: RunDirectory,
        stages: Sequence[str],
        *,
        data: Dataset,
        student: LoadedModel,
        classes: Sequence[str],
        accelerator: Accelerator,
        workers: int | None,
        progress: Progress,
    ) -> None:
        self.run, self.names = run, ["teacher", "student", *stages]
        self.data, self.student, self.classes = data, student, classes
        self.accelerator, self.main = accelerator, accelerator.is_main_process
        self.workers, self.progress = workers, progress

    def folder(self, name: str) -> Path:
        return self.run.stage_dir(self.names.index(name), name)

    def facts(self) -> list[dict[str, Any]]:
        """Each recorded step's ``metrics.json``, in the order in which they came."""
        return [read_metrics(self.run.path / "stages" / folder) for folder in self.run.state["order"]]

    def teacher(self, teacher: LoadedModel | None) -> np.ndarray | None:
        """The teacher's logits on the test split, float32 ``(n, classes)``; None without one.

        Processes that write nothing know none either.
        """
        if teacher is None:
            return None
        logits_file = self.folder("teacher") / "test_logits.safetensors"
        if self.main and not self.run.is_done("teacher"):
            begun = time.perf_counter()
            logits = self._logits("teacher", teacher.module, teacher)
            save_logits(logits_file, logits)
            metrics = score(logits, self.data.test, logits)
            facts = {"notes": teacher.notes, "seconds": time.perf_counter() - begun}
            self._save("teacher", teacher.module, metrics, facts, source=teacher)
            labels = self.data.test.labels
            doubt = guessing_doubt("the teacher", metrics.get("top1"), commonest_share(labels), len(labels))
            if doubt is not None and teacher.weights != "random":
                _log.warning(doubt)
        self.accelerator.wait_for_everyone()
        return load_logits(logits_file).numpy() if self.main else None

    def write(
        self, name: str, model: nn.Module, facts: dict[str, Any], teacher_logits: np.ndarray | None
    ) -> None:
        """Evaluate on the test split, write the step's folder, and only then call it done."""
        if self.main and not self.run.is_done(name):
            begun = time.perf_counter()
            metrics = score(self._logits(name, model, self.student), self.data.test, teacher_logits)
            seconds = facts.get("seconds", time.perf_counter() - begun)
            self._save(name, model, metrics, {**facts, "seconds": seconds}, source=self.student)
        self.accelerator.wait_for_everyone()

    def drop_checkpoint(self, folder: Path) -> None:
        """Remove what only an unfinished step needs."""
        if self.main:
            (folder / "checkpoint.pt").unlink(missing_ok=True)
            for step in folder.glob("step-*"):
                shutil.rmtree(step)

    def _logits(self, name: str, model: nn.Module, loaded: LoadedModel) -> np.ndarray:
        return torch_logits(
            model.to(self.accelerator.device), self.data.test, loaded.preprocess, self.accelerator.device,
            what=f"evaluate {name}", workers=self.workers, progress=self.progress,
        )  # fmt: skip

    def _save(
        self,
        name: str,
        model: nn.Module,
        metrics: dict[str, Any],
        facts: dict[str, Any],
        *,
        source: LoadedModel,
    ) -> None:
        folder = self.folder(name)
        cost = measure_cost(baked(model), torch.from_numpy(self.student.preprocess.example(1)))
        content = {"name": name, "metrics": metrics, "params": cost.params, "nonzero_params": cost.nonzero_params,
                   "macs": cost.macs, **facts}  # fmt: skip
        if source.weights == "onnx":
            write_json(folder / "metrics.json", content)
        else:
            save_stage(folder, model, content, student=source, classes=self.classes)
        order = self.run.state.setdefault("order", [])
        if folder.name not in order:
            order.append(folder.name)
        self.run.finish(name)
