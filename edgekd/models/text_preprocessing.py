"""The tokenizer that a text model was trained with, with the recipe's overrides on top."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekd.errors import ModelError, fault
from edgekd.models.preprocessing import override
from edgekd.preprocess_text import AnyPreprocess, TextPreprocess
from edgekd.recipe import InputRecipe

DEFAULT_LENGTH = 128  # tokens; enough for a news item's head, and what latencies are told for


def declared_text(
    declared: Mapping[str, Any], folder: Path, input: InputRecipe, where: str
) -> TextPreprocess:
    """A user's ``PREPROCESS = {"tokenizer": "tokenizer.json", "max_length": 128}``.

    Args:
        folder: that the tokenizer's path starts from.

    Raises:
        ModelError: an unknown field, no such file, or not a tokenizer.
    """
    unknown = sorted(set(declared) - {"tokenizer", "max_length"})
    if unknown:
        raise ModelError(
            fault(f"{where}: preprocess.{unknown[0]}", "unknown field", allowed="tokenizer, max_length")
        )
    length = declared.get("max_length", DEFAULT_LENGTH)
    if not isinstance(length, int) or length < 4:
        raise ModelError(
            fault(f"{where}: preprocess.max_length", "not a length", got=length, allowed="4 or more")
        )
    file = folder / str(declared["tokenizer"])
    return TextPreprocess.from_file(file, max_length=input.max_length or length, where=where)


def with_input(own: AnyPreprocess, input: InputRecipe, where: str) -> AnyPreprocess:
    """``own`` with the recipe's overrides, of either kind.

    Raises:
        ModelError: an override that does not fit the model.
    """
    if not isinstance(own, TextPreprocess):
        return override(own, input, where)
    return own if input.max_length is None else own.model_copy(update={"max_length": input.max_length})


def shared_input(own: AnyPreprocess) -> InputRecipe:
    """A teacher's preprocessing as overrides for its student."""
    if isinstance(own, TextPreprocess):
        return InputRecipe(max_length=own.max_length)
    return InputRecipe(
        size=(own.height, own.width), channels=own.channels, mean=own.mean, std=own.std,
        interpolation=own.interpolation, crop_pct=own.crop_pct,
    )  # fmt: skip


def require_same_input(teacher: AnyPreprocess, student: AnyPreprocess, where: str) -> None:
    """Teacher and student are fed the same batches, so a token number must mean the same to both.

    Raises:
        ModelError: one takes images and the other text, or the vocabularies differ.
    """
    if type(teacher) is not type(student):
        raise ModelError(fault(where, "teacher and student must both take images, or both text"))
    if not isinstance(teacher, TextPreprocess) or not isinstance(student, TextPreprocess):
        return
    if not teacher.same_ids(student):
        fix = "choose a student with the teacher's tokenizer"
        raise ModelError(fault(where, "the student has another vocabulary than the teacher", fix=fix))
