"""Files that a peer wrote for the same job before: edgekd changes daily, its peers do not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from benchmarks.peers.environment import Environment
from benchmarks.peers.row import Row
from edgekd.artifact import sha256_file, write_json

_FILE = "kept.json"
_FIELDS = ("status", "reason", "quantize_s", "peak_memory_bytes", "notes", "size_bytes")


def job_key(job: Path, script: Path, environment: Environment) -> str:
    """Of everything that decides what a peer writes: its script, its packages, its settings, the model, the samples."""
    parts: dict[str, Any] = {
        "script": script.read_text(encoding="utf-8"),
        "versions": environment.versions,
        "settings": json.loads((job / "job.json").read_text(encoding="utf-8"))["settings"],
        **{name: sha256_file(job / name) for name in ("fp32.onnx", "weights.safetensors", "calibration.npy")},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def recall(job: Path, key: str, row: Row) -> Row | None:
    """``row`` as the peer left it before; None when it has not done this very job. A time-out is tried again."""
    try:
        stored = json.loads((job / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if stored.get("key") != key or stored["row"]["status"] == "timed out":
        return None
    return row.model_copy(update=stored["row"])


def remember(job: Path, key: str, row: Row) -> None:
    stored = row.model_dump(mode="json", include=set(_FIELDS))
    write_json(job / _FILE, {"key": key, "row": stored})
