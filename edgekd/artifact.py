"""The run directory: what is written, where, and never half.

::

    OUT/recipe.yaml            resolved, complete
    OUT/run.json               stages done, seeds, versions, hashes: what --resume reads
    OUT/stages/NN-name/        model.safetensors, metrics.json
    OUT/deploy/<device>/       model.onnx, manifest.json, run.py, labels.json, README.md
    OUT/report.json  report.md  report.html

Every file is written under a temporary name in the same folder and renamed. No torch here.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekd.errors import OutputError, fault


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``; renamed onto it when the block ends well, removed when not.

    Raises:
        OutputError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def output_error(path: Path, error: OSError) -> OutputError:
    """What an ``OSError`` while writing ``path`` means to the user."""
    if error.errno == errno.ENOSPC:
        return OutputError(fault(str(path), "the disk is full", fix="free space and run again with --resume"))
    reason = os.strerror(error.errno) if error.errno else str(error)
    return OutputError(fault(str(path), "cannot be written", got=reason, fix="choose another --out"))


def check_writable(path: Path, *, fix: str) -> None:
    """Whether a file could be written there, tried without leaving a trace.

    Raises:
        OutputError: it is a folder, or its folder cannot be written.
    """
    if path.is_dir():
        raise OutputError(fault(str(path), "is a folder, not a file", fix=fix))
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OutputError(fault(str(path), "cannot be written", got=reason, fix=fix)) from error


def write_text(path: Path, text: str) -> None:
    """``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """``value`` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


class RunDirectory:
    """One run's folder. Creating it claims the folder; a folder that holds another run is refused.

    Attributes:
        path: the folder.
        state: the content of ``run.json``.
    """

    def __init__(self, path: Path, state: dict[str, Any]) -> None:
        self.path = path
        self.state = state

    @classmethod
    def check(cls, path: Path, *, recipe_hash: str, resume: bool) -> None:
        """Everything that :meth:`open` could refuse, tried early and without leaving a trace.

        Raises:
            OutputError: not writable, not empty, another run's, or another recipe's.
        """
        run_file = path / "run.json"
        if run_file.exists():
            state = _read_state(run_file)
            if not resume:
                fix = "add --resume to go on with it, or choose another --out"
                raise OutputError(fault(str(path), "holds another run", fix=fix))
            if state.get("recipe_hash") != recipe_hash:
                raise OutputError(
                    fault(str(path), "holds a run of another recipe", got=str(state.get("recipe_hash"))[:12],
                          allowed=recipe_hash[:12],
                          fix="resume with the recipe it was started with, or choose another --out")
                )  # fmt: skip
        elif path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise OutputError(fault(str(path), "is not an empty folder", fix="choose another --out"))
        existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        try:
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError as error:
            raise output_error(path, error) from None

    @classmethod
    def open(cls, path: Path, *, recipe_yaml: str, recipe_hash: str, resume: bool) -> RunDirectory:
        """Claim ``path`` for a new run, or reopen it to resume.

        Raises:
            OutputError: as :meth:`check`.
        """
        cls.check(path, recipe_hash=recipe_hash, resume=resume)
        run_file = path / "run.json"
        if run_file.exists():
            return cls(path, _read_state(run_file))
        run = cls(path, {"schema": 1, "recipe_hash": recipe_hash, "stages": {}})
        write_text(path / "recipe.yaml", recipe_yaml)
        run.save()
        return run

    def claim_data(self, name: str, fingerprint: str) -> None:
        """Record what the run reads; what was found with other samples cannot be gone on with.

        Raises:
            OutputError: the samples, their labels or their order are not those that the run began with.
        """
        known = self.state.get("data")
        if known is None:
            self.state["data"] = fingerprint
            self.save()
        elif known != fingerprint:
            fix = "restore the data, or choose another --out to begin anew"
            raise OutputError(
                fault(str(self.path), f"the data {name} changed since the run began", got=fingerprint[:12],
                      allowed=known[:12], fix=fix)
            )  # fmt: skip

    def tidy(self) -> None:
        """Remove what writes left that a kill cut short. No other process may be writing here."""
        for pattern in (".*.tmp", ".*.tmp.onnx"):
            for leftover in self.path.rglob(pattern):
                leftover.unlink(missing_ok=True)

    def save(self) -> None:
        write_json(self.path / "run.json", self.state)

    def stage_dir(self, position: int, name: str) -> Path:
        """``stages/NN-name``; ``position`` counts from 0."""
        return self.path / "stages" / f"{position:02d}-{name}"

    def deploy_dir(self, device: str) -> Path:
        return self.path / "deploy" / device

    def is_done(self, key: str) -> bool:
        return bool(self.state["stages"].get(key, {}).get("done"))

    def finish(self, key: str, **facts: Any) -> None:
        """Record that a stage's files are all on disk; written last, so a kill before it repeats it."""
        self.state["stages"][key] = {"done": True, **facts}
        self.save()


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise OutputError(fault(str(path), "is not a run.json", fix="choose another --out")) from None
    if not isinstance(state, dict) or state.get("schema") != 1:
        raise OutputError(
            fault(str(path), "was written by another version of edgekd", fix="choose another --out")
        )
    return state
