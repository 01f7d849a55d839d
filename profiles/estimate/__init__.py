"""How long an ONNX file takes on a device that is not at hand: a model of graph and hardware, with a known error.

The package and its function share a name, :func:`edgekd.profiles.estimate`: importing the package sets that
attribute to the module, so the module can be called.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """:func:`edgekd.profiles.estimate.api.estimate`."""
        from edgekd.profiles.estimate.api import estimate

        return estimate(*arguments, **named)


sys.modules[__name__].__class__ = _Callable
