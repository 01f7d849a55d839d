"""The command line: one file a verb; each parses, makes one library call and prints."""

from __future__ import annotations

from edgekd.cli.app import main

__all__ = ["main"]
