"""Rounds that a broken-off measurement has finished, kept on this machine until the same call completes them."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekd.artifact import write_text
from edgekd.errors import OutputError
from edgekd.profiles.cautions import Caution, CautionKind
from edgekd.profiles.runner import Finished, Opened
from edgekd.profiles.ssh.remote import RemoteRunner

_MOST_SECONDS = 24 * 3600.0  # older rounds are of another day: measured afresh


def kept_path(question: Mapping[str, Any]) -> Path:
    """Where rounds of this very question are kept: host, files by their sha256, all settings."""
    key = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:32]
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "edgekd" / "ssh" / f"{key}.json"


class KeptRounds:
    """Rounds by label. Only whole cycles are taken up again: within one, all models ran next to each other.

    Args:
        path: of the file; None keeps nothing.
        now: seconds since 1970.
    """

    def __init__(self, path: Path | None, labels: list[str], now: float | None = None) -> None:
        self.path = path
        self.now = time.time() if now is None else now
        self.rounds: dict[str, list[list[float]]] = {label: [] for label in labels}
        self.monitor: dict[str, list[str]] = {label: [] for label in labels}
        self.versions: dict[str, str] = {}
        self.since = self.now
        if path is not None:
            self._read(path)
        self.cycles = min(map(len, self.rounds.values()), default=0)
        for rounds in self.rounds.values():
            del rounds[self.cycles :]

    def _read(self, path: Path) -> None:
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if not self.now - _MOST_SECONDS <= float(kept["since"]) <= self.now:
                return
            rounds = {
                label: [list(map(float, one)) for one in kept["rounds"][label]] for label in self.rounds
            }
            monitor = {label: [str(line) for line in kept["monitor"][label]] for label in self.rounds}
            self.versions = {label: str(kept["versions"][label]) for label in self.rounds}
        except (OSError, ValueError, KeyError, TypeError):
            return
        self.rounds, self.monitor, self.since = rounds, monitor, float(kept["since"])

    def opened(self, label: str, version: str) -> None:
        """Another version of the runtime since then: nothing of the old rounds counts."""
        if self.cycles and self.versions.get(label) != version:
            self.cycles, self.since = 0, self.now
            self.rounds = {label: [] for label in self.rounds}
            self.monitor = {label: [] for label in self.rounds}
        self.versions[label] = version

    def add(self, label: str, samples: list[float], lines: list[str]) -> None:
        self.rounds[label].append(samples)
        self.monitor[label] += lines
        if self.path is not None:
            content = {
                "since": self.since,
                "versions": self.versions,
                "rounds": self.rounds,
                "monitor": self.monitor,
            }
            try:
                write_text(self.path, json.dumps(content))
            except OutputError:
                self.path = None  # nothing to go on from, should it break off; no reason to break off now

    def done(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def cautions(self) -> list[Caution]:
        if not self.cycles:
            return []
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since))
        count = f"{self.cycles} rounds are" if self.cycles > 1 else "1 round is"
        text = f"{count} from a measurement that began at {when} and broke off; the others were measured now"
        return [Caution(CautionKind.RESUMED, text)]


class KeptRunner:
    """A runner whose first rounds may be known already."""

    def __init__(self, inner: RemoteRunner, label: str, kept: KeptRounds) -> None:
        self._inner = inner
        self._label = label
        self._kept = kept
        self._turn = 0

    def open(self) -> Opened:
        opened = self._inner.open()
        self._kept.opened(self._label, opened.runtime_version)
        return opened

    def round(self) -> list[float]:
        self._turn += 1
        if self._turn <= self._kept.cycles:
            return self._kept.rounds[self._label][self._turn - 1]
        samples = self._inner.round()
        self._kept.add(self._label, samples, self._inner.monitor_lines)
        return samples

    def finish(self) -> Finished:
        return self._inner.finish()

    def close(self) -> None:
        self._inner.close()
