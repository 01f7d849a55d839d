"""What a recipe names, opened and found to fit together before anything is trained or written."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from edgekd.data.open import open_data
from edgekd.data.source import Dataset, Progress, is_text, noun
from edgekd.data.tokens import cut_warnings
from edgekd.deploy import plan_opset
from edgekd.device import DeviceSpec, load_device
from edgekd.errors import DataError, RecipeError, fault
from edgekd.models.loaded import LoadedModel
from edgekd.models.resolve import resolve_model
from edgekd.preprocess_text import Text, TextPreprocess
from edgekd.recipe import Recipe
from edgekd.schedule import derive_seed
from edgekd.students.choose import choose_student
from edgekd.tasks import TASKS

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """The data, and the models that read them.

    Attributes:
        classes: names, in the order of the student's answers.
    """

    data: Dataset
    teacher: LoadedModel | None
    student: LoadedModel
    classes: tuple[str, ...]

    def tell(self) -> None:
        """One log line on what was understood, and the models' own notes: a wrong guess is cheap to mend now."""
        data, preprocess = self.data, self.student.preprocess
        if isinstance(preprocess, TextPreprocess):
            read = f"up to {preprocess.max_length} tokens"
        else:
            read = f"{preprocess.channels}x{preprocess.height}x{preprocess.width}"
        _log.info(
            f"{data.name}: {len(data.train):,} {noun(data.train.source)}s to train, {len(data.validation):,} to "
            f"validate, {len(data.test):,} to test, {len(self.classes):,} classes; read as {read}"
        )
        teacher_notes = self.teacher.notes if self.teacher is not None else []
        for note in teacher_notes:
            _log.info(f"teacher: {note}")
        for note in self.student.notes:
            if note not in teacher_notes:
                _log.info(f"student: {note}")


def open_devices(recipe: Recipe) -> list[DeviceSpec]:
    """
    Raises:
        DeviceError: unknown, or its runtime cannot load what would be written.
        RecipeError: a board stands twice, or an opset that cannot be written.
    """
    devices = [load_device(name) for name in recipe.devices]
    for spec in devices:
        plan_opset(recipe, spec)
        if sum(other.name == spec.name for other in devices) > 1:
            fix = "two JetPacks of one board are two runs"
            raise RecipeError(
                fault(f"{recipe.name}: devices", "a board stands twice", got=spec.name, fix=fix)
            )
    return devices


def open_inputs(recipe: Recipe, base: Path, progress: Progress) -> Opened:
    """
    Raises:
        DataError: what cannot be read, labels that do not fit the teacher.
        ModelError: an unknown model, one that does not fit the data, a student that does not fit the teacher.
    """
    data = open_data(recipe.data, base=base, progress=progress, text=TASKS[recipe.task].text)
    classes = len(data.classes) if recipe.data.labels else 0
    torch.manual_seed(derive_seed(recipe.seed, "init"))  # fresh weights come from the global generator
    teacher = None
    if recipe.teacher is not None:
        where = f"{recipe.name}: teacher"
        teacher = resolve_model(recipe.teacher, classes=classes, input=recipe.input, base=base, where=where)
        _require_same_labels(recipe, data, teacher, classes)
    student = choose_student(recipe, teacher, classes=classes, base=base, texts=lambda: _train_texts(data))
    if isinstance(student.preprocess, TextPreprocess):
        data.warnings.extend(cut_warnings(data, student.preprocess))
    return Opened(data, teacher, student, _class_names(data, teacher, student))


def _train_texts(data: Dataset) -> Iterator[Text]:
    source = data.train.source
    if is_text(source):
        yield from (source.text(index) for index in data.train.indices.tolist())


def _require_same_labels(recipe: Recipe, data: Dataset, teacher: LoadedModel, classes: int) -> None:
    """A teacher that knows its classes by name must mean the same by each number as the data does."""
    if classes and teacher.classes != classes:
        raise DataError(
            fault(data.name, "the labels do not fit the teacher", got=f"{classes} classes",
                  allowed=f"the teacher's {teacher.classes}")
        )  # fmt: skip
    known, given = teacher.class_names, data.classes
    if not (recipe.data.labels and known and given) or known == given:
        return
    strange = next((name for name in given if name not in known), None)
    what = (
        "labels that the teacher does not have" if strange else "labels in another order than the teacher's"
    )
    raise DataError(
        fault(data.name, what, got=strange or list(given)[:5], allowed=", ".join(known[:10]),
              fix="name the classes as the teacher does")
    )  # fmt: skip


def _class_names(data: Dataset, teacher: LoadedModel | None, student: LoadedModel) -> tuple[str, ...]:
    """The data's; without labels its folders may mean anything, then the teacher's own, or numbers."""
    known = [data.classes, *([teacher.class_names] if teacher else [])]
    fitting = [names for names in known if len(names) == student.classes]
    return fitting[0] if fitting else tuple(str(k) for k in range(student.classes))
