"""Networks of published rows that neither timm nor torchvision defines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def find_net(model: str) -> tuple[str, Callable[[tuple[int, ...]], Any]] | None:
    """``(source, builder)``, see :mod:`benchmarks.latency.architecture_sources`."""
    return None
