"""Activations exchanged in :mod:`vision_families`: what is asked, what was done, both figures side by side."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekd.quant.substitute import exchange
from edgekd.recipe_substitute import pairs

OWN = "vision-families-1-thread"


def asked(given: list[str]) -> dict[str, str]:
    """``["relu"]`` for all that ReLU can replace, or ``["silu=relu", "gelu=quick-gelu"]``."""
    found: dict[str, str] = {}
    for each in given:
        old, equals, new = each.partition("=")
        found |= {old: new} if equals else pairs(each)
    return found


def exchanged(model: nn.Module, example: torch.Tensor, given: list[str]) -> dict[str, Any]:
    """Exchange activations of ``model`` where it has them: how many of each, and how many stayed."""
    found = exchange(model, example, asked(given), fold=True)
    return {**Counter(found.exchanged.values()), **({"kept": found.kept} if found.kept else {})}


def mean(ratios: list[float]) -> float | None:
    """Geometric."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else None


def beside_own(rows: dict[str, Any], results: Path, name: str = OWN) -> dict[str, Any] | None:
    """Geometric means over the models that were measured both ways: own activations, and exchanged.

    A network with nothing to exchange counts as it was measured. The figures of own activations are those of the
    stored result, of another run.

    Args:
        rows: of this run, over each network's fp32 file with its own activations.
        results: the folder where the other run's result is.
    """
    file = results / f"{name}.json"
    if not file.exists():
        return None
    stored = json.loads(file.read_text())
    own = {model: row["deployed"]["speedup"] for model, row in stored["models"].items() if "deployed" in row}
    both = [model for model, row in rows.items() if "deployed" in row and model in own]
    return {
        "models": len(both),
        "nothing to exchange": sum(not rows[model].get("substituted") for model in both),
        "own activations": mean([own[model] for model in both]),
        "exchanged": mean([rows[model]["deployed"]["speedup"] for model in both]),
        "own activations from": {"file": file.name, "date": stored["conditions"]["date"]},
    }
