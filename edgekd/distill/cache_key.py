"""What the teacher's stored answers depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.artifact import write_json
from edgekd.errors import OutputError, fault
from edgekd.preprocess_text import AnyPreprocess
from edgekd.recipe_stages import AugmentRecipe


@dataclass(frozen=True)
class CacheKey:
    """The components of a cache's identity; the number of epochs is none of them.

    Attributes:
        components: by the name that a message shows, JSON-able values.
    """

    components: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        *,
        teacher: str,
        data: str,
        samples: np.ndarray,
        augment: AugmentRecipe,
        preprocess: AnyPreprocess,
        seed: int,
        top_k: int,
        slots: int,
        batch_size: int,
        precision: str = "fp32",
    ) -> CacheKey:
        """
        Args:
            teacher: its fingerprint.
            data: the data set's fingerprint.
            samples: int64, the source indices of the training samples.
            augment: the augmentation, replayed from ``seed`` and the slot.
            preprocess: what the loader does to each image.
            seed: of the augmentation.
            top_k: classes kept for each sample.
            slots: distinct augmentations before they repeat.
            batch_size: counts only with mixup or cutmix, which mix whole batches.
            precision: that the teacher runs in.
        """
        mixes = augment.mixup > 0 or augment.cutmix > 0
        ordered = np.sort(np.asarray(samples, dtype="<i8"))
        return cls(
            {
                "teacher": teacher,
                "data": data,
                "samples": hashlib.sha256(ordered.tobytes()).hexdigest(),
                "augmentation": augment.model_dump(mode="json"),
                "preprocessing": preprocess.model_dump(mode="json"),
                "seed": seed,
                "cache_top_k": top_k,
                "cache_slots": slots,
                "batch_size with mixup": batch_size if mixes else None,
                "precision": precision,
            }
        )

    def hash(self) -> str:
        """sha256 of the canonical JSON."""
        return hashlib.sha256(json.dumps(dict(self.components), sort_keys=True).encode()).hexdigest()

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """``name: theirs, here ours`` of every component that differs; long values are cut."""
        mine = json.loads(json.dumps(dict(self.components)))  # tuples become lists, as in the file
        lines = []
        for name in sorted({*mine, *other}):
            ours, theirs = mine.get(name), other.get(name)
            if ours == theirs:
                continue
            if isinstance(ours, dict) and isinstance(theirs, dict):
                keys = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
                name = f"{name}.{keys[0]}"
                ours, theirs = ours.get(keys[0]), theirs.get(keys[0])
            lines.append(f"{name} ({_short(theirs)} there, {_short(ours)} here)")
        return lines


def claim_folder(path: Path, key: CacheKey) -> None:
    """Write ``cache.json`` into a new cache's folder, or check the one that is there.

    Raises:
        OutputError: another key's cache (the message names every component that differs), not a cache, or
            not writable.
    """
    file = path / "cache.json"
    if not file.exists():
        write_json(file, {"schema": 1, "key": key.hash(), "components": dict(key.components)})
        return
    try:
        components = dict(json.loads(file.read_text(encoding="utf-8"))["components"])
    except (OSError, ValueError, KeyError, TypeError):
        raise OutputError(fault(str(file), "is not a teacher cache's key", fix=f"delete {path}")) from None
    if differences := key.differences(components):
        what = f"the teacher cache was made with another {', '.join(differences)}"
        fix = "delete the folder to fill it anew, or set teacher_cache: false"
        raise OutputError(fault(str(path), what, fix=fix))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."
