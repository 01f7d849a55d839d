"""What pruning did, as data for report.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class PermutedGroup:
    """One set of channels that moved together. ``layers`` read it and carry the mask."""

    root: str
    layers: list[str]
    channels: int
    kept_before: float
    kept_after: float


@dataclass(frozen=True)
class PermutationReport:
    """Share of the absolute weight (0 to 1) that the pattern keeps, before and after channels moved.

    ``reason`` is set when nothing could be tried at all.
    """

    kept_before: float
    kept_after: float
    groups: list[PermutedGroup] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class PruneReport:
    """``layers`` carry masks; ``layers_total`` counts every Conv2d and Linear; ``skipped`` is (name, reason).

    ``kept_magnitude`` is the share of the absolute weight, 0 to 1, that the masks keep in the masked layers.
    With SR-STE it is the share at the start.
    """

    pattern: str
    saliency: str
    mask: str
    layers: list[str]
    layers_total: int
    skipped: list[tuple[str, str]]
    kept_magnitude: float
    kept_magnitude_by_layer: dict[str, float]
    permutation: PermutationReport | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
