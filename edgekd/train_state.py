"""What a killed training resumes from: one file, written whole or not at all, loaded without pickle code."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from edgekd.artifact import atomic_path
from edgekd.errors import OutputError, fault


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """``state`` (tensors, numbers, strings, lists, dicts) to ``path``, atomically."""
    buffer = io.BytesIO()  # in memory first: a full disk then shows as an OSError with its reason
    torch.save(state, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state in ``path`` on the CPU; None when there is none yet.

    Raises:
        OutputError: the file was not written by edgekd.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise OutputError(
            fault(str(path), f"is not a checkpoint of this run: {reason}", fix="remove it to redo the stage")
        ) from None
    if not isinstance(state, dict):
        raise OutputError(
            fault(str(path), "is not a checkpoint of this run", fix="remove it to redo the stage")
        )
    return state
