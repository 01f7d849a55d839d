"""Fetch Fashion-MNIST into a folder: Debian's package unpacked without root, else its public download.

What arrives is checked against the sha256 of the uncompressed content, which is the same whoever
compressed it, and only then moved into place.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import tempfile
import urllib.request
import zlib
from collections.abc import Sequence
from pathlib import Path

from edgekd.artifact import output_error
from edgekd.data.source import Progress
from edgekd.errors import DataError, fault

PACKAGE = "dataset-fashion-mnist"
URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
CONTENT_SHA256 = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
_WHAT = "fetching Fashion-MNIST"
_APT_SECONDS = 900
_HTTP_SECONDS = 60


class _Unavailable(Exception):
    """One origin cannot deliver; the next one may."""


def fetch_fashion_mnist(folder: Path, files: Sequence[str], progress: Progress | None = None) -> str:
    """Put ``files`` into ``folder``; returns which origin delivered.

    Raises:
        DataError: no origin delivered; says why each did not, and where to put the files by hand.
        OutputError: the cache cannot be written.
    """
    reasons = []
    origins = {f"Debian package {PACKAGE}": _from_debian, URL: _from_url}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, (origin, deliver) in enumerate(origins.items()):
            if progress is not None:
                progress(_WHAT, number, len(origins))
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder.parent) as work:
                try:
                    found = deliver(Path(work), files)
                    for name in files:
                        _check(found / name, CONTENT_SHA256.get(name))
                except _Unavailable as reason:
                    reasons.append(str(reason))
                    continue
                for name in files:
                    (found / name).replace(folder / name)
            if progress is not None:
                progress(_WHAT, len(origins), len(origins))
            return origin
    except OSError as error:
        raise output_error(folder, error) from error
    fix = f"put {', '.join(files)} into {folder}"
    raise DataError(fault("builtin:fashion-mnist", "cannot be fetched: " + "; ".join(reasons), fix=fix))


def _check(path: Path, expected: str | None) -> None:
    if not path.is_file():
        raise _Unavailable(f"{path.name} did not come")
    try:
        with gzip.open(path) as stream:
            actual = hashlib.file_digest(stream, "sha256").hexdigest()
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise _Unavailable(f"{path.name} came damaged") from None
    if actual != expected:
        raise _Unavailable(f"{path.name} has sha256 {actual[:12]} instead of {str(expected)[:12]}")


def _from_debian(work: Path, files: Sequence[str]) -> Path:
    """``apt-get download`` and ``dpkg -x``: neither needs root."""
    apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg")
    if apt is None or dpkg is None:
        raise _Unavailable("apt-get: not on this system")
    if _run([apt, "-q", "download", PACKAGE], work):
        # No package lists, as on a fresh container: read them into a folder of our own.
        for part in ("lists/partial", "cache/archives/partial"):
            (work / part).mkdir(parents=True)
        folders = [f"Dir::State::Lists={work}/lists", f"Dir::Cache={work}/cache"]
        private = [*folders, "Dir::State::status=/dev/null", "Debug::NoLocking=1"]
        options = [part for option in private for part in ("-o", option)]
        problem = _run([apt, "-q", *options, "update"], work) or _run(
            [apt, "-q", *options, "download", PACKAGE], work
        )
        if problem:
            raise _Unavailable(f"apt-get: {problem}")
    packages = list(work.glob(f"{PACKAGE}_*.deb"))
    if not packages:
        raise _Unavailable("apt-get: no package came")
    problem = _run([dpkg, "-x", str(packages[0]), str(work / "unpacked")], work)
    found = next((work / "unpacked").rglob(files[0]), None) if not problem else None
    if found is None:
        raise _Unavailable(f"dpkg: {problem or 'the files are not in the package'}")
    return found.parent


def _run(command: list[str], folder: Path) -> str:
    """The last line of complaint; empty when it went well."""
    try:
        done = subprocess.run(  # noqa: S603  (an argument list of fixed words and our own folder)
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_APT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return "" if done.returncode == 0 else (lines[-1] if lines else f"exit code {done.returncode}")


def _from_url(work: Path, files: Sequence[str]) -> Path:
    for name in files:
        try:
            answer = urllib.request.urlopen(URL + name, timeout=_HTTP_SECONDS)  # noqa: S310  (constant, https)
            with answer, (work / name).open("wb") as target:
                shutil.copyfileobj(answer, target)
        except (OSError, ValueError) as error:  # URLError and HTTPError are OSErrors
            raise _Unavailable(f"download: {getattr(error, 'reason', None) or error}") from None
    return work
