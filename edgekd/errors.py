"""Every error that edgekd raises on purpose.

::

    EdgeKDError                    exit 1
    ├── UserInputError             exit 2: the user's input is wrong; the message is one line
    │   ├── RecipeError            an unknown key, a value outside its range, stages in an impossible order
    │   ├── DeviceError            an unknown board, a wrong device file, a runtime that cannot take the file
    │   ├── DataError              a missing folder, a broken image, an empty class, labels that do not fit
    │   ├── ModelError             an unknown model, a checkpoint that does not fit, classes that differ
    │   ├── ModelFileError         an ONNX file that is truncated, corrupt or not what the verb needs
    │   ├── HostError              a board that ssh cannot reach, that refuses, or lacks what a measurement needs
    │   ├── OutputError            a read-only or full disk, a directory that holds another run
    │   └── TrainingDivergedError  NaN or exploding loss: names the step and the sample ids
    ├── PreconditionError          a stage cannot start on this model (exit 2: it asks for the impossible)
    ├── PostconditionError         a stage's guarantee does not hold any more: a defect, never silent
    ├── ExportError                the written file is not what was trained
    │   ├── ParityError            the ONNX file and the torch model answer differently
    │   └── CoverageError          too many float kernels are left in the optimized graph
    └── MissingDependencyError     an optional package is not installed (exit 2, prints the pip command)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

_UNSET = object()


class EdgeKDError(Exception):
    """Root of the tree. ``str(error)`` is one line that a person can act on."""

    exit_code = 1


class UserInputError(EdgeKDError):
    exit_code = 2


class RecipeError(UserInputError):
    pass


class DeviceError(UserInputError):
    pass


class DataError(UserInputError):
    pass


class ModelError(UserInputError):
    pass


class ModelFileError(UserInputError):
    pass


class HostError(UserInputError):
    pass


class OutputError(UserInputError):
    pass


class TrainingDivergedError(UserInputError):
    pass


class PreconditionError(EdgeKDError):
    exit_code = 2


class PostconditionError(EdgeKDError):
    pass


class ExportError(EdgeKDError):
    pass


class ParityError(ExportError):
    pass


class CoverageError(ExportError):
    pass


class MissingDependencyError(EdgeKDError):
    exit_code = 2


def fault(
    where: str, what: str, *, got: Any = _UNSET, allowed: str | None = None, fix: str | None = None
) -> str:
    """One line: where, what is wrong, the value got, what is allowed, what to do.

    >>> fault("recipe.yaml: prune.pattern", "not an N:M pattern", got="2:1", allowed="N < M, such as 2:4")
    "recipe.yaml: prune.pattern: not an N:M pattern; got '2:1'; allowed: N < M, such as 2:4"
    """
    parts = [f"{where}: {what}"]
    if got is not _UNSET:
        parts.append(f"got {got!r}")
    if allowed:
        parts.append(f"allowed: {allowed}")
    if fix:
        parts.append(fix)
    return " ".join("; ".join(parts).split())


def nearest(name: str, known: Iterable[str]) -> str:
    """``"did you mean 'X'?"`` for the closest known name, or the list of all known names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(names)
