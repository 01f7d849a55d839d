"""Where samples come from: formats, splits, checks, loaders, and augmentation that replays from a seed.

Opening and measuring need no torch; the loaders do, and are imported when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgekd.data.batches import eval_batches
from edgekd.data.open import open_data
from edgekd.data.source import Dataset, ImageSource, Progress, Split

if TYPE_CHECKING:
    from edgekd.data.loader import eval_loader, train_loader

__all__ = [
    "Dataset",
    "ImageSource",
    "Progress",
    "Split",
    "eval_batches",
    "eval_loader",
    "open_data",
    "train_loader",
]


def __getattr__(name: str) -> Any:
    if name in ("eval_loader", "train_loader"):
        from edgekd.data import loader

        return getattr(loader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
