"""``python -m edgekd``: the command line, for launchers that start a module in several processes."""

from __future__ import annotations

from edgekd.cli.app import main

main()
