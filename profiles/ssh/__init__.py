"""Latency on a board that ``ssh`` reaches: measured there, reported here, nothing left behind.

Names are loaded on first use, as in :mod:`edgekd.profiles`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekd.profiles.ssh.destination import SshOptions
    from edgekd.profiles.ssh.health import BoardHealth
    from edgekd.profiles.ssh.measured import measure_on_host
    from edgekd.profiles.ssh.script import run_script
    from edgekd.profiles.ssh.setup import setup_venv

__all__ = ["BoardHealth", "SshOptions", "measure_on_host", "run_script", "setup_venv"]

_HOMES = {
    "BoardHealth": "health",
    "SshOptions": "destination",
    "measure_on_host": "measured",
    "run_script": "script",
    "setup_venv": "setup",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
