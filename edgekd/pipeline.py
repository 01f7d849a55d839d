"""Run a recipe: teacher, student, stages, one deployed file per device, the report.

``compress`` is the whole product in one call. Every step that finished is recorded (``records.py``); called again
with ``resume=True`` it goes on behind the last one.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from edgekd.artifact import RunDirectory
from edgekd.baselines import Baselines, require_exportable, write_baselines
from edgekd.data.source import Progress
from edgekd.deploy import deploy
from edgekd.device import DeviceSpec
from edgekd.limits import check_limits
from edgekd.models.loaded import LoadedModel
from edgekd.opening import open_devices, open_inputs
from edgekd.recipe import Recipe
from edgekd.records import Records
from edgekd.report import Report
from edgekd.run_report import write_run_report
from edgekd.schedule import open_accelerator
from edgekd.stage_inputs import StageInputs
from edgekd.stages import STAGES, Stage
from edgekd.stages.base import StageContext
from edgekd.stages.distill import Distill
from edgekd.store import load_state, read_metrics
from edgekd.train import network


def compress(
    recipe: Recipe,
    out: Path,
    *,
    base: Path = Path(),
    resume: bool = False,
    progress: Progress | None = None,
) -> Report | None:
    """Run ``recipe`` into the folder ``out`` and return its report.

    Args:
        base: relative paths of the recipe start here.
        progress: called as ``progress(what, done, total)``.

    Returns:
        None in the processes of ``accelerate launch`` that are not the main one.

    Raises:
        UserInputError: the recipe asks for what the data, the models or the devices do not give.
        EdgeKDError: a guarantee does not hold, or a limit of the recipe is missed.
    """
    run = _Run(recipe, out, base, resume, progress or (lambda what, done, total: None))
    return run.execute()


@dataclass
class Trained:
    """The student after the last stage, and what deployment compares it with."""

    model: nn.Module
    dense: nn.Module
    teacher: LoadedModel | None
    student: LoadedModel
    teacher_logits: np.ndarray | None


class _Run:
    def __init__(self, recipe: Recipe, out: Path, base: Path, resume: bool, progress: Progress) -> None:
        self.recipe, self.out, self.resume = recipe, out, resume
        self.accelerator = open_accelerator()
        self.main = self.accelerator.is_main_process
        self.progress: Progress = progress if self.main else (lambda what, done, total: None)
        self.devices: list[DeviceSpec] = open_devices(recipe)
        self.opset = max(device.opset_export for device in self.devices)  # of the fp32 files
        if self.main:
            RunDirectory.check(out, recipe_hash=recipe.hash(), resume=resume)
        opened = open_inputs(recipe, base, self.progress)
        self.data, self.teacher, self.student = opened.data, opened.teacher, opened.student
        self.classes = opened.classes
        self.inputs = StageInputs(recipe, base, teacher=self.teacher, student=self.student, data=self.data,
                                  where=recipe.name, progress=self.progress)  # fmt: skip
        self.stages: list[tuple[str, Stage]] = _named(recipe)
        for name, stage in self.stages:
            stage.requires(self.student.module, self._context(name, stage, out))
        self.accelerator.wait_for_everyone()
        if self.main:
            self.run = RunDirectory.open(
                out, recipe_yaml=recipe.to_yaml(), recipe_hash=recipe.hash(), resume=resume
            )
            self.run.tidy()
            self.run.claim_data(self.data.name, self.data.fingerprint)
            if not self.run.is_done("student"):  # who resumes has read it
                opened.tell()
        self.accelerator.wait_for_everyone()
        if not self.main:
            self.run = RunDirectory.open(
                out, recipe_yaml=recipe.to_yaml(), recipe_hash=recipe.hash(), resume=True
            )
        self.records = Records(
            self.run, [name for name, _ in self.stages], data=self.data, student=self.student, classes=self.classes,
            accelerator=self.accelerator, workers=recipe.data.workers, progress=self.progress,
        )  # fmt: skip

    def _context(self, name: str, stage: Stage, folder: Path) -> StageContext:
        settings = getattr(stage, "recipe", None)
        return StageContext(
            name=name, folder=folder, cache_folder=self.out / "cache", data=self.inputs.data_of(settings, name),
            preprocess=self.student.preprocess, teacher=self.inputs.teacher_of(settings, name),
            classes=self.student.classes, seed=self.recipe.seed, scheme=self.devices[0].scheme,
            accelerator=self.accelerator, workers=self.recipe.data.workers, progress=self.progress,
            device=self.devices[0].name,
        )  # fmt: skip

    def execute(self) -> Report | None:
        if self.main and not self.run.is_done("student"):
            require_exportable(self.out / "baseline", self.teacher, self.student, opset=self.opset)
        trained = self._train()
        if not self.main:
            return None
        baselines = self._baselines(trained)
        entries = []
        for spec in self.devices:
            key = f"deploy/{spec.name}"
            folder = self.run.deploy_dir(spec.name)
            if not (self.run.is_done(key) and (folder / "manifest.json").exists()):
                begun = time.perf_counter()
                entry = deploy(
                    trained.model, spec, folder, recipe=self.recipe, data=self.data, student=self.student,
                    classes=self.classes, teacher_logits=trained.teacher_logits, baselines=baselines,
                    out=self.out, progress=self.progress,
                )  # fmt: skip
                facts = entry.model_dump(mode="json", by_alias=True)
                self.run.finish(key, entry=facts, seconds=time.perf_counter() - begun)
            entries.append(self.run.state["stages"][key]["entry"])
        report = write_run_report(
            self.run, self.recipe, self.data, self.records.facts(), entries, device=str(self.accelerator.device),
            teacher=self.teacher, student=self.student,
        )  # fmt: skip
        check_limits(report, self.recipe.limits, self.out)
        return report

    def _train(self) -> Trained:
        teacher_logits = self.records.teacher(self.teacher)
        model = self.student.module
        self.records.write("student", model, {"notes": self.student.notes}, teacher_logits)
        dense: nn.Module | None = None
        done: list[Stage] = []
        for name, stage in self.stages:
            if dense is None and not isinstance(stage, Distill):
                dense = copy.deepcopy(model)
            folder = self.records.folder(name)
            context = self._context(name, stage, folder)
            if self.run.is_done(name):
                self.records.drop_checkpoint(folder)  # a kill may have come between the two
                model = stage.attach(model.cpu(), read_metrics(folder)["facts"], context)
                load_state(folder, model)
            else:
                model = self._run_stage(name, stage, model, context, teacher_logits)
            done.append(stage)
            for earlier in done:
                earlier.ensures(model)
        return Trained(model, dense or model, self.teacher, self.student, teacher_logits)

    def _run_stage(
        self,
        name: str,
        stage: Stage,
        model: nn.Module,
        context: StageContext,
        teacher_logits: np.ndarray | None,
    ) -> nn.Module:
        begun = time.perf_counter()
        outcome = stage.apply(model, context)
        stage.ensures(outcome.model)
        facts = {"facts": outcome.facts, "history": outcome.history, "notes": outcome.notes,
                 "seconds": time.perf_counter() - begun}  # fmt: skip
        self.records.write(name, outcome.model, facts, teacher_logits)
        self.records.drop_checkpoint(context.folder)
        self.accelerator.wait_for_everyone()
        return outcome.model

    def _baselines(self, trained: Trained) -> Baselines:
        return write_baselines(
            self.out / "baseline", network(trained.dense), trained.teacher, self.student,
            data=self.data, teacher_logits=trained.teacher_logits, opset=self.opset,
            progress=self.progress,
        )  # fmt: skip


def _named(recipe: Recipe) -> list[tuple[str, Stage]]:
    """Stages with names that are unique in the run: ``distill``, ``prune``, ``prune-2``, ..."""
    seen: dict[str, int] = {}
    named = []
    for settings in recipe.stages:
        count = seen[settings.stage] = seen.get(settings.stage, 0) + 1
        named.append(
            (settings.stage if count == 1 else f"{settings.stage}-{count}", STAGES[type(settings)](settings))
        )
    return named
