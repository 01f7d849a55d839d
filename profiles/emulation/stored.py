"""Counts as JSON: without the blocks, so that a fit on many models takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekd.profiles.emulation.cores import EmulatedCore
from edgekd.profiles.emulation.counts import Counts, Region, classes
from edgekd.profiles.emulation.model import LINES_BEYOND, Work, work
from edgekd.profiles.emulation.sharing import alone_share


def to_json(counts: Counts, core: EmulatedCore) -> dict[str, Any]:
    """One inference of one model on one core."""
    return {
        "core": core.name,
        "caches": [list(level) for level in core.caches],
        "whole": _region(counts.whole),
        "operators": [
            {
                "op": each.op,
                "family": each.family,
                "macs": each.macs,
                "bytes": each.bytes,
                **_region(each.region),
            }
            for each in counts.operators
        ],
    }


def stored_work(row: Mapping[str, Any], style: str) -> Work:
    """What :func:`edgekd.profiles.emulation.model.work` says of a stored inference."""
    whole = row["whole"]
    operators = [sum(each["instructions"].values()) for each in row["operators"]]
    alone = alone_share(sum(whole["instructions"].values()), operators)
    return work(whole["instructions"], sum(whole["lines"][LINES_BEYOND]), style, alone)


def _region(region: Region) -> dict[str, Any]:
    return {"instructions": classes(region), "lines": [list(level) for level in region.lines]}
