"""Python decisions that depend on the values in the data: an exported file would freeze them.

A trace follows one input. Where ``forward`` asks ``if x.mean() > 0``, the file keeps the branch that this
input took and is silently wrong for others. Such lines are found before any training: values that come from
the input are followed through one forward pass, and lines that turn one into a Python number are noted. What
the exporter's own trace passes by as well is data-dependent; what it skips (models that ask whether they are
being traced) is not.
"""

from __future__ import annotations

import linecache
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning
from torch.overrides import TorchFunctionMode

from edgekd.errors import ModelError, fault
from edgekd.models.calls import tensors_in

_TO_PYTHON = frozenset({"__bool__", "__int__", "__float__", "__index__", "item", "tolist", "numpy"})
_OWN = str(Path(torch.__file__).parent)

Line = tuple[str, int]


class _Follow(TorchFunctionMode):
    """Notes which lines turn a value that comes from the input into a Python number."""

    def __init__(self, source: Tensor) -> None:
        super().__init__()
        self._alive: list[Any] = [source]  # ids stay unique while the objects live
        self._derived = {id(source)}
        self.lines: dict[Line, str] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        derived = any(id(tensor) in self._derived for tensor in tensors_in((args, kwargs or {})))
        if derived and name in _TO_PYTHON and (line := _caller()) is not None:
            self.lines.setdefault(line, name)
        output = func(*args, **(kwargs or {}))
        if derived and name not in ("size", "dim", "numel", "__len__"):
            for tensor in tensors_in(output):
                self._derived.add(id(tensor))
                self._alive.append(tensor)
        return output


def require_static_control_flow(module: nn.Module, example: Tensor, where: str) -> None:
    """Refuse a model whose ``forward`` decides by the values it is given.

    Args:
        module: in eval mode.
        example: ``(2, ...)``; one forward pass, and a trace only where something was found.
        where: start of the message.

    Raises:
        ModelError: names the file, the line and the operation.
    """
    follow = _Follow(example)
    with torch.no_grad(), follow:
        module(example)
    if not follow.lines:
        return
    traced = _traced_lines(module, example)
    for (file, number), operation in follow.lines.items():
        if (file, number) in traced:
            source = linecache.getline(file, number).strip()
            raise ModelError(
                fault(where, f"{Path(file).name}, line {number}: `{source[:100]}` depends on the data ({operation})",
                      allowed="a forward() that does the same for every input",
                      fix="use torch.where, or take the decision out of the model")
            )  # fmt: skip


def _traced_lines(module: nn.Module, example: Tensor) -> set[Line]:
    """Lines where torch's tracer freezes a value; the tracer warns at each."""
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always")
        try:
            torch.jit.trace(module, (example,), check_trace=False)
        except (RuntimeError, ValueError, TypeError):
            return set()  # cannot be traced at all: the export says why
    return {
        (warning.filename, warning.lineno)
        for warning in caught
        if issubclass(warning.category, TracerWarning)
    }


def _caller() -> Line | None:
    """The nearest line outside torch."""
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_OWN) and file != __file__:
            return file, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]
    return None
