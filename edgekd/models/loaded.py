"""What a model specification turns into, and what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import nn

from edgekd.preprocess_text import AnyPreprocess
from edgekd.recipe import InputRecipe

Role = Literal["teacher", "student"]
Weights = Literal["pretrained", "checkpoint", "built", "random", "onnx", "run"]


@dataclass
class LoadedModel:
    """A model in eval mode on the CPU, with everything that is needed to feed and rebuild it.

    Attributes:
        module: float32 ``(batch, channels, height, width)``, or token ids int64 ``(batch, sequence)``, to
            logits ``(batch, classes)``.
        spec: what the user wrote.
        preprocess: what happens to a sample before ``module``; its ``example`` has been tried.
        classes: logits per sample.
        weights: where the numbers come from; ``"built"``: a file's factory, which may have loaded them.
        architecture: the specification without weights, for :func:`edgekd.models.resolve.build_architecture`;
            empty for a black box.
        folded: batch norms are folded into the convolutions already.
        class_names: as the model's own file states them, or empty.
        own_size: pixels (height, width) that the model was made for, where it says so.
        notes: what the user should know about how the model was put together.
    """

    module: nn.Module
    spec: str
    preprocess: AnyPreprocess
    classes: int
    weights: Weights
    architecture: str
    folded: bool = False
    class_names: tuple[str, ...] = ()
    own_size: tuple[int, int] | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Request:
    """What the recipe asks of a model.

    Attributes:
        classes: the data's class count; 0 where the data has no class names.
        input: overrides of the model's preprocessing.
        base: folder that relative paths start from.
        where: start of every message, such as ``"recipe.yaml: teacher"``.
        role: a teacher keeps its head; a student's follows the data.
    """

    classes: int
    input: InputRecipe
    base: Path
    where: str
    role: Role = "teacher"

    def path(self, name: str) -> Path:
        """``name`` against :attr:`base`, with ``~`` expanded."""
        return self.base / Path(name).expanduser()
