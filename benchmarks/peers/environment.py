"""A virtual environment per peer, made once and kept until its requirements change."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.peers.bounded import one_line, run_bounded
from edgekd.data.cache_dir import cache_dir

OWN = "own"
"""The environment that runs the harness itself."""
_STAMP = "peers-environment.json"


class EnvironmentFailed(Exception):
    """``str(error)`` is the one line that the peer's row gives as its reason."""


@dataclass(frozen=True)
class Environment:
    """``python`` inside the environment; ``versions`` of all that is installed there, by lower-case name."""

    python: Path
    versions: dict[str, str]


def prepare(
    name: str, steps: Sequence[Sequence[str]], *, constraints: Sequence[str] = (), timeout_s: float
) -> Environment:
    """The environment ``name`` with ``steps`` installed, one ``pip install`` each.

    A refusal is remembered: a later run says the same without trying again, until the requirements change.

    Raises:
        EnvironmentFailed: pip refuses, or takes longer than ``timeout_s`` in all.
    """
    if name == OWN:
        own = {found.name.lower().replace("_", "-"): found.version for found in metadata.distributions()}
        return Environment(Path(sys.executable), own)
    folder = cache_dir() / "peers" / name
    digest = hashlib.sha256(json.dumps([list(constraints), *map(list, steps)]).encode()).hexdigest()
    stamp = folder / _STAMP
    known: dict[str, Any] = json.loads(stamp.read_text()) if stamp.exists() else {}
    if known.get("requirements") != digest:
        shutil.rmtree(folder, ignore_errors=True)
        known = {"requirements": digest, **_install(folder, steps, constraints, timeout_s)}
        stamp.write_text(json.dumps(known, indent=1))
    if "error" in known:
        raise EnvironmentFailed(known["error"])
    return Environment(folder / "bin" / "python", known["versions"])


def _install(
    folder: Path, steps: Sequence[Sequence[str]], constraints: Sequence[str], timeout_s: float
) -> dict[str, Any]:
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    folder.mkdir(parents=True)
    pins = folder / "constraints.txt"
    pins.write_text("".join(f"{line}\n" for line in constraints))
    left = timeout_s
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        *([*pip, "install", "--quiet", "--constraint", str(pins), *step] for step in steps),
    ):
        ended = run_bounded(command, timeout_s=left)
        left -= ended.seconds
        if (reason := ended.reason(timeout_s)) is not None:
            return {"error": one_line(f"does not install: {reason}")}
    return {"versions": _versions(pip)}


def _versions(pip: Sequence[str]) -> dict[str, str]:
    output = run_bounded([*pip, "list", "--format", "json"], timeout_s=120).output
    listed = json.loads(output[output.index("[{") : output.rindex("}]") + 2])
    return {entry["name"].lower().replace("_", "-"): entry["version"] for entry in listed}
