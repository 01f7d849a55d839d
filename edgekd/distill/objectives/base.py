"""What an objective reads and what it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor

from edgekd.errors import PreconditionError, RecipeError, fault
from edgekd.recipe_stages import ObjectiveRecipe, TrainRecipe


@dataclass(frozen=True)
class Needs:
    """What must be computed for an objective; the training loop computes nothing else."""

    teacher_logits: bool = False
    labels: bool = False
    features: bool = False

    def __or__(self, other: Needs) -> Needs:
        return Needs(
            teacher_logits=self.teacher_logits or other.teacher_logits,
            labels=self.labels or other.labels,
            features=self.features or other.features,
        )


@dataclass
class Outputs:
    """One batch, seen by student and teacher.

    Attributes:
        student_logits: ``(batch, classes)``.
        teacher_logits: ``(batch, classes)``; log-probabilities serve as well, see ``kd.py``.
        labels: int64 ``(batch,)``; -1 marks a sample without a label.
        targets: float ``(batch, classes)``, rows that sum to 1: mixup's soft labels; with ``several``, 0 and 1.
            They replace ``labels``.
        several: a sample may have several labels: each class is a question of its own, logits go through a
            sigmoid.
        student_features, teacher_features: one tensor a layer pair, ``(batch, channels, height, width)`` or
            ``(batch, tokens, channels)`` or any other shape that the objective takes.
        layers: the (student, teacher) module names of the features, for messages.
        tokens: bool ``(batch, tokens)``, false on padding; None where nothing is padded.
        heads: of the student's and the teacher's attention, where the features are an attention's operands.
    """

    student_logits: Tensor
    teacher_logits: Tensor | None = None
    labels: Tensor | None = None
    targets: Tensor | None = None
    several: bool = False
    student_features: list[Tensor] = field(default_factory=list)
    teacher_features: list[Tensor] = field(default_factory=list)
    layers: list[tuple[str, str]] = field(default_factory=list)
    tokens: Tensor | None = None
    heads: tuple[int, int] | None = None


class Objective(Protocol):
    """A scalar loss of one batch, averaged over the samples. Gradients never reach the teacher."""

    @property
    def needs(self) -> Needs: ...

    def __call__(self, outputs: Outputs) -> Tensor: ...


class Builder(Protocol):
    """Makes an objective from its own recipe and the stage's."""

    def __call__(self, recipe: ObjectiveRecipe, train: TrainRecipe) -> Objective: ...


@dataclass(frozen=True)
class ObjectiveKind:
    """A row of the table of objectives; calling it builds the objective.

    Attributes:
        name: as the recipe spells it.
        builder: the class, or a function of (recipe, train).
        summary: one line for ``edgekd objectives``.
        settings: what of ``temperature``, ``layers``, ``distance`` and ``relation_heads`` it reads; the others
            are refused.
        reads: which features: those of ``layers``, of the module before the first block (``embedding``), or
            query, key and value of one ``attention``.
    """

    name: str
    builder: Builder
    summary: str
    settings: tuple[str, ...] = ()
    reads: Literal["layers", "embedding", "attention"] = "layers"

    def __call__(self, recipe: ObjectiveRecipe, train: TrainRecipe) -> Objective:
        """
        Raises:
            RecipeError: a setting is given that the objective does not read.
        """
        # Compared by value: a resolved recipe on disk spells every default out.
        given: dict[str, Any] = {
            "temperature": recipe.temperature,
            "layers": None if recipe.layers == "auto" else recipe.layers,
            "distance": recipe.distance,
            "relation_heads": recipe.relation_heads,
        }
        for setting, value in given.items():
            if value is not None and setting not in self.settings:
                where = f"objectives.{self.name}.{setting}"
                allowed = ", ".join(("weight", *self.settings))
                raise RecipeError(
                    fault(where, f"{self.name} does not read it", got=value, allowed=allowed, fix="remove it")
                )
        return self.builder(recipe, train)


def required(value: Tensor | None, objective: str, what: str) -> Tensor:
    """``value``, or one line that says what the batch lacks.

    Raises:
        PreconditionError: ``value`` is None.
    """
    if value is None:
        raise PreconditionError(fault(f"objectives.{objective}", f"needs {what}, and the batch has none"))
    return value


def layer_names(layers: list[tuple[str, str]] | None, position: int) -> str:
    """``student 'a', teacher 'b'`` of one feature pair."""
    if layers is None or position >= len(layers):
        return f"pair {position}"
    student, teacher = layers[position]
    return f"student {student!r}, teacher {teacher!r}"


def check_pairs(student: list[Tensor], teacher: list[Tensor], objective: str) -> None:
    """
    Raises:
        PreconditionError: no features, or not as many from the student as from the teacher.
    """
    if not student or len(student) != len(teacher):
        raise PreconditionError(
            fault(
                f"objectives.{objective}",
                "needs at least one feature pair",
                got=f"{len(student)} of the student, {len(teacher)} of the teacher",
            )
        )


def check_attention(outputs: Outputs, objective: str) -> tuple[int, int]:
    """The head counts of a batch that carries query, key and value of both networks.

    Raises:
        PreconditionError: it does not.
    """
    check_pairs(outputs.student_features, outputs.teacher_features, objective)
    if outputs.heads is None or len(outputs.student_features) != 3:
        raise PreconditionError(
            fault(f"objectives.{objective}", "needs query, key and value of one attention",
                  got=f"{len(outputs.student_features)} features")
        )  # fmt: skip
    return outputs.heads
