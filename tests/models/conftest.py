"""Resolving a tiny model, and catching the one line with which a wrong one is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgekd.errors import UserInputError
from edgekd.models.loaded import LoadedModel
from edgekd.models.resolve import resolve_model
from edgekd.models.torchvision_shim import ensure_torchvision_ops
from edgekd.recipe import InputRecipe

ensure_torchvision_ops()  # before any test file imports timm

WHERE = "recipe.yaml: teacher"


@pytest.fixture
def resolve(tmp_path: Path) -> Callable[..., LoadedModel]:
    """``resolve(spec, classes=10, role="teacher", size=32, ...)`` relative to ``tmp_path``."""

    def call(spec: str, classes: int = 10, role: str = "teacher", **overrides: object) -> LoadedModel:
        torch.manual_seed(0)
        recipe = InputRecipe.model_validate(overrides)
        return resolve_model(spec, classes=classes, input=recipe, base=tmp_path, where=WHERE, role=role)  # type: ignore[arg-type]

    return call


@pytest.fixture
def refused(resolve: Callable[..., LoadedModel]) -> Callable[..., str]:
    """Like ``resolve``, but the model must be refused: the message, which is one line and says where."""

    def call(spec: str, *, error: type[UserInputError], **arguments: object) -> str:
        with pytest.raises(error) as caught:
            resolve(spec, **arguments)
        message = str(caught.value)
        assert caught.type is error
        assert "\n" not in message
        assert message.startswith(WHERE)
        return message

    return call
