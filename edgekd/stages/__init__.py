"""The stages of a run, by the name that a recipe uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgekd.stages.base import Stage
from edgekd.stages.distill import Distill
from edgekd.stages.prune import Prune
from edgekd.stages.quantize import Quantize

STAGES: dict[str, Callable[[Any], Stage]] = {"distill": Distill, "prune": Prune, "quantize": Quantize}

__all__ = ["STAGES", "Stage"]
