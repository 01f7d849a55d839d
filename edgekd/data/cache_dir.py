"""Where edgekd keeps what it fetched or learned about a user's data."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """``$EDGEKD_CACHE``, else ``edgekd`` below ``$XDG_CACHE_HOME`` or ``~/.cache``. Not created here."""
    own = os.environ.get("EDGEKD_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "edgekd"
