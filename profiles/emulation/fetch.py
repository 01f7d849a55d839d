"""Packages by the system's own ``apt`` and ``pip``, from their configured sources, into folders of ours. No root.

apt gets private lists, state and cache, so that it resolves for another architecture than this machine's and touches
nothing of the system. It refuses what its signed indices do not vouch for; pip refuses a wheel with another hash.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekd.artifact import sha256_file
from edgekd.errors import EdgeKDError, MissingDependencyError, fault

_STATUS = Path("/var/lib/dpkg/status")


def fetch_debs(
    packages: Sequence[str], folder: Path, *, arch: str | None, sources: Path | None = None
) -> list[Path]:
    """Packages with all that they depend on, as ``.deb`` files. What is there already is not fetched again.

    Args:
        arch: Debian's name of an architecture, for a userland of its own; None for what this very system lacks.
        sources: a ``sources.list`` in place of apt's own.

    Raises:
        MissingDependencyError: no apt here.
        EdgeKDError: no such package for this architecture, or no network.
    """
    lists, state, cache = folder / "lists", folder / "state", folder / "cache"
    nothing = folder / "nothing"
    for place in (lists / "partial", state, cache / "archives" / "partial", nothing / "partial"):
        place.mkdir(parents=True, exist_ok=True)
    options = {
        "Dir::State": state,
        "Dir::State::Lists": lists,
        "Dir::State::status": "/dev/null" if arch else _STATUS,
        "Dir::Cache": cache,
        "Debug::NoLocking": "1",
        "APT::Sandbox::User": "root",  # as root: no other user may write into this cache
        "Acquire::Languages": "none",
        "APT::Get::AllowUnauthenticated": "false",
        "Acquire::AllowInsecureRepositories": "false",
        "DPkg::Post-Invoke": "",
    }
    if arch:
        options |= {"APT::Architecture": arch, "APT::Architectures": arch}
    if sources is not None:
        options |= {"Dir::Etc::SourceList": sources.absolute(), "Dir::Etc::SourceParts": "/dev/null"}
    command = ["apt-get", "-q", "-y", "--no-install-recommends"]
    command += [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
    where = f"apt ({arch})" if arch else "apt"
    _run([*command, "update"], where)
    # apt lists what it would fetch: all of it, when it sees an empty folder of archives.
    listed = _run(
        [*command, "-o", f"Dir::Cache::archives={nothing}", "--print-uris", "install", *packages], where
    )
    names = re.findall(r"^'[^']+' (\S+\.deb) \d+", listed, re.MULTILINE)
    _run([*command, "--download-only", "install", *packages], where)
    return [cache / "archives" / Path(name).name for name in names]


def fetch_wheels(
    wheels: Mapping[str, str], folder: Path, *, python: str, platforms: Sequence[str]
) -> list[Path]:
    """Wheels for another platform, each with its SHA-256.

    Args:
        wheels: requirement such as ``numpy==2.4.6`` to the hash of the one wheel that is meant.

    Raises:
        MissingDependencyError: no pip here.
        EdgeKDError: no such wheel, another content, or no network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    have = {sha256_file(path): path for path in folder.glob("*.whl")}
    missing = {name: digest for name, digest in wheels.items() if digest not in have}
    if missing:
        wanted = folder / "requirements.txt"
        lines = [f"{name} --hash=sha256:{digest}\n" for name, digest in missing.items()]
        wanted.write_text("".join(lines), encoding="ascii")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary=:all:", "--require-hashes", "--python-version", python]
        command += [part for platform in platforms for part in ("--platform", platform)]
        _run([*command, "--dest", str(folder), "--requirement", str(wanted)], "pip")
        have = {sha256_file(path): path for path in folder.glob("*.whl")}
    if absent := [name for name, digest in wheels.items() if digest not in have]:
        raise EdgeKDError(fault("pip", "the wheel that came has another SHA-256", got=absent[0]))
    return [have[digest] for digest in wheels.values()]


def _run(command: Sequence[str], where: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError as error:
        fix = "run on Debian or Ubuntu (a container will do), or use --method estimate"
        raise MissingDependencyError(
            fault(command[0], "does not start", got=error.strerror, fix=fix)
        ) from None
    if done.returncode == 0:
        return done.stdout
    lines = [line for line in done.stderr.splitlines() if line.startswith(("E:", "ERROR:"))] or [done.stderr]
    text = lines[0][:300] if lines[0].strip() else f"exit status {done.returncode}"
    if "No module named pip" in done.stderr:
        raise MissingDependencyError(fault("pip", "is not installed", fix="run: python -m ensurepip"))
    fix = "check the network and the configured package sources; what was fetched is kept"
    if "Unable to locate package" in text or "Failed to fetch" in text:
        fix = (
            "these sources may lack arm64: name others with --sources FILE (Ubuntu keeps arm64 on its ports)"
        )
    raise EdgeKDError(fault(where, "could not fetch", got=text, fix=fix))
