"""An architecture without its weights, built again from what was recorded about it."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from edgekd.errors import ModelError, fault
from edgekd.models.timm_models import build_timm
from edgekd.models.timm_spec import parse_timm
from edgekd.models.user_file import build_user, parse_user


def build_architecture(architecture: str, *, classes: int, channels: int, where: str) -> nn.Module:
    """A fresh module with random weights, drawn from the global random state.

    Args:
        architecture: :attr:`edgekd.models.loaded.LoadedModel.architecture`.
        classes: logits per image.
        channels: 1 or 3.

    Raises:
        ModelError: nothing that can be built.
    """
    if architecture.startswith("timm:"):
        return build_timm(parse_timm(architecture, where), classes, channels, where)
    if architecture.startswith("torch:"):
        parsed = parse_user(architecture, where)
        return build_user(parsed, Path(parsed.file), classes, channels, where)
    raise ModelError(
        fault(where, "cannot be rebuilt", got=architecture, allowed="timm:NAME or torch:FILE.py:FACTORY")
    )
