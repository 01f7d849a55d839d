"""What every runtime makes of a file, and how a missing one is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.errors import MissingDependencyError, fault

if TYPE_CHECKING:
    Call = Callable[[], object]
else:
    Call = object  # Python 3.8 on a board cannot evaluate it


@dataclass(frozen=True)
class Loaded:
    """A file, opened and ready to run on inputs that it already holds.

    Attributes:
        infer: one inference.
        inputs: shapes by name.
        provider: where it computes.
        precision: ``fp32``, ``fp16`` or ``int8`` where the runtime tells.
        notes: what the runtime did with the file that a reader must know, one line each.
        stream: makes another caller that may run while ``infer`` does; None where ``infer`` itself may.
    """

    infer: Call
    inputs: dict[str, list[int]] = field(default_factory=dict)
    provider: str = "cpu"
    precision: str | None = None
    notes: list[str] = field(default_factory=list)
    stream: Callable[[], Call] | None = None

    def callers(self, count: int) -> list[Call]:
        """As many callers as are to run at the same time."""
        if self.stream is None:
            return [self.infer] * count
        return [self.infer, *(self.stream() for _ in range(count - 1))]


@dataclass(frozen=True)
class Declared:
    """An input as :func:`edgekd.profiles.inputs.random_inputs` reads it: as ONNX Runtime declares them.

    Attributes:
        type: such as ``tensor(float)``.
        shape: a number, or a name where the file leaves the dimension open.
    """

    name: str
    type: str
    shape: list[int | str]


def declared(name: str, dtype: np.dtype, dims: Sequence[int | None]) -> Declared:
    """From a numpy type and dimensions; None and negative ones are open."""
    spelled = {"float32": "float", "float64": "double"}.get(dtype.name, dtype.name)
    shape: list[int | str] = [
        f"dim{place}" if dim is None or dim < 0 else int(dim) for place, dim in enumerate(dims)
    ]
    return Declared(name, f"tensor({spelled})", shape)


def needed(module: str, extra: str) -> Any:
    """Import an optional runtime.

    Raises:
        MissingDependencyError: with the pip command.
    """
    try:
        return import_module(module)
    except ImportError as error:
        fix = f"run: pip install 'edgekd[{extra}]'"
        raise MissingDependencyError(fault(module, "cannot be imported", got=str(error), fix=fix)) from None


def reason(error: BaseException) -> str:
    """A runtime's message, on one line and no longer than a person reads."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
