"""Which network is trained: the teacher itself, or another one that takes the teacher's input and classes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn

from edgekd.errors import ModelError, fault
from edgekd.models.cost import measure_cost
from edgekd.models.loaded import LoadedModel
from edgekd.models.resolve import resolve_model
from edgekd.models.text_preprocessing import require_same_input, shared_input
from edgekd.preprocess_text import Text, TextPreprocess
from edgekd.recipe import Recipe
from edgekd.students.derive import Smaller, derive_student, parse_smaller
from edgekd.students.vocabulary import in_vocabulary, trimmed_to

SAME = "same"


def choose_student(
    recipe: Recipe,
    teacher: LoadedModel | None,
    *,
    classes: int,
    base: Path,
    texts: Callable[[], Iterable[Text]] | None = None,
) -> LoadedModel:
    """The student, ready to train: every parameter takes gradients.

    ``same`` copies the teacher; ``same?layers=3`` keeps some of a text model's layers with their weights
    (:mod:`edgekd.students.derive`). Any other student is given the teacher's preprocessing, because both see the
    same batches.

    Args:
        recipe: its ``student`` and ``input``.
        teacher: None where the recipe trains without one.
        classes: the data's class count; 0 where unknown: then the teacher's.
        base: folder that relative paths start from.
        texts: gives the training texts, for a student that asks for the task's vocabulary.

    Raises:
        ModelError: a black-box teacher as ``same``, class counts that differ, a refused input.
    """
    where = f"{recipe.name}: student"
    base_spec, smaller = _wanted(recipe.student, where)
    if base_spec == SAME:
        student = _same(teacher, where)
    else:
        wanted = teacher.classes if teacher is not None else classes
        input = shared_input(teacher.preprocess) if teacher is not None else recipe.input
        student = resolve_model(
            base_spec, classes=wanted, input=input, base=base, where=where, role="student"
        )
        if teacher is not None:
            require_same_input(teacher.preprocess, student.preprocess, where)
            student.preprocess = teacher.preprocess
            student.notes += _larger(student, teacher)
    if teacher is not None and student.classes != teacher.classes:
        raise ModelError(
            fault(where, f"{student.spec} has {student.classes} classes, the teacher {teacher.classes}")
        )
    if smaller.cuts:
        student = derive_student(student, smaller, where)
    if smaller.vocabulary:
        student = _trim(student, texts, where)
    student.module.requires_grad_(True)
    return student


def _trim(student: LoadedModel, texts: Callable[[], Iterable[Text]] | None, where: str) -> LoadedModel:
    own = student.preprocess
    if texts is None or not isinstance(own, TextPreprocess):
        raise ModelError(fault(f"{where}: vocabulary", "the data are no texts", got=student.spec))
    return in_vocabulary(student, trimmed_to(own, texts(), where), where)


def guide(teacher: LoadedModel | None, student: LoadedModel, where: str) -> nn.Module | None:
    """The teacher as it teaches: where the student's vocabulary was trimmed, for the student's token ids."""
    if teacher is None:
        return None
    ours, theirs = student.preprocess, teacher.preprocess
    if not isinstance(ours, TextPreprocess) or not isinstance(theirs, TextPreprocess):
        return teacher.module
    if ours.tokenizer_sha256 == theirs.tokenizer_sha256:
        return teacher.module
    return in_vocabulary(teacher, ours, where).module


def _wanted(spec: str, where: str) -> tuple[str, Smaller]:
    """Of ``same`` and text models, what follows the ``?`` makes them smaller; timm's arguments are its own."""
    return parse_smaller(spec, where) if spec.startswith((SAME, "hf:")) else (spec, Smaller())


def _same(teacher: LoadedModel | None, where: str) -> LoadedModel:
    if teacher is None:
        raise ModelError(
            fault(where, "'same' needs a teacher", fix="name a student, such as timm:resnet18@random")
        )
    if teacher.weights == "onnx":
        raise ModelError(
            fault(
                where,
                "'same' cannot copy an ONNX teacher: a black box has no weights to train",
                got=teacher.spec,
                fix="name a student, such as timm:resnet18@random",
            )
        )
    student = copy.copy(teacher)
    student.module = copy.deepcopy(teacher.module)
    student.notes = []
    return student


def _larger(student: LoadedModel, teacher: LoadedModel) -> list[str]:
    """A warning where compressing would enlarge."""
    sample = torch.from_numpy(teacher.preprocess.example(1))
    ours, its = measure_cost(student.module, sample), measure_cost(teacher.module, sample)
    notes = []
    for what, mine, theirs in (
        ("parameters", ours.params, its.params),
        ("multiply-accumulates", ours.macs, its.macs),
    ):
        if mine > theirs:
            notes.append(f"the student is larger than the teacher: {mine:,} {what} against {theirs:,}")
    return notes
