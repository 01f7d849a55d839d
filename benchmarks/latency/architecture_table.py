"""Operators of the published models, as a table in the repository: reading it needs no torch.

``architectures.py`` writes it. Fields at their default are left out of a row.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from edgekd.profiles.estimation.operators import Operator, Workload

TABLE = Path(__file__).with_name("architectures.json.gz")
_FIELDS = {entry.name: entry.default for entry in fields(Operator) if entry.name != "node"}

Key = tuple[str, str]


def canonical_shape(shape: str) -> str:
    """``1x224x224x3`` and ``1x3x224x224`` are one input: channels first.

    >>> canonical_shape("1x224x224x3")
    '1x3x224x224'
    """
    sizes = shape.split("x")
    if len(sizes) == 4 and sizes[3] in ("1", "3") and sizes[1] not in ("1", "3"):
        sizes = [sizes[0], sizes[3], sizes[1], sizes[2]]
    return "x".join(sizes)


def read_architectures(path: Path = TABLE) -> dict[Key, Workload]:
    """``(model, channels-first shape)`` of a published row to its workload in fp32."""
    document = json.loads(gzip.decompress(path.read_bytes()))
    return {
        (entry["model"], entry["shape"]): Workload(
            operators=tuple(_operator(row) for row in entry["operators"]),
            inputs={"input": tuple(int(size) for size in entry["shape"].split("x"))},
            totals=entry.get("totals", {}),
            source=entry["source"],
            notes=tuple(entry.get("notes", ())),
        )
        for entry in document
    }


def find_architecture(
    table: Mapping[Key, Workload], model: str, input_shape: str, runtime: str
) -> Workload | None:
    """Of a published row. ncnn's rows ran networks of its own, which differ a little from the usual definition."""
    shape = canonical_shape(input_shape)
    own = table.get((f"{model}@ncnn", shape)) if runtime.startswith("ncnn") else None
    return own or table.get((model, shape))


def write_architectures(workloads: Mapping[Key, Workload], path: Path = TABLE) -> None:
    """The same table gives the same bytes."""
    document = []
    for (model, shape), workload in sorted(workloads.items()):
        entry: dict[str, Any] = {"model": model, "shape": shape, "source": workload.source}
        if workload.totals:
            entry["totals"] = dict(workload.totals)
        if workload.notes:
            entry["notes"] = list(workload.notes)
        entry["operators"] = [_row(operator) for operator in workload.operators]
        document.append(entry)
    text = json.dumps(document, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def _row(operator: Operator) -> dict[str, Any]:
    values = {name: getattr(operator, name) for name in _FIELDS}
    return {
        name: value for name, value in values.items() if _FIELDS[name] is MISSING or value != _FIELDS[name]
    }


def _operator(row: dict[str, Any]) -> Operator:
    kernel = row.get("kernel")
    return Operator(node="", **{**row, "kernel": None if kernel is None else (kernel[0], kernel[1])})
