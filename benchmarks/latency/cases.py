"""A row and its network as a problem for the solver, and what is believed before any row is read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from architecture_table import find_architecture
from rows import Row
from solver import Case, Prior

from edgekd.profiles.estimation.hardware import Hardware
from edgekd.profiles.estimation.op_table import OpTable, op_table
from edgekd.profiles.estimation.operators import Workload
from edgekd.profiles.estimation.pricing import terms_of
from edgekd.profiles.estimation.runtimes import RuntimeKind
from edgekd.profiles.estimation.terms import Terms

# Multiples of the ideal time that kernels of a family usually take.
_USUAL = {
    "mac/conv-depthwise": 5.0, "mac/conv-grouped": 2.5, "mac/conv-first": 1.8, "mac/conv-dense-3x3": 1.2,
    "mac/gemm": 2.0, "mac/attention": 2.0, "mac/recurrent": 3.0, "move/activation-expensive": 6.0,
    "move/softmax": 10.0, "move/norm": 6.0, "move/resize": 4.0, "move/transpose": 4.0, "pack/windows": 0.5,
    "pack/rows": 0.5, "weights": 0.5, "out/heavy": 1.0, "out/light": 1.0, "groups": 0.5, "grouped": 1.2, "tile": 0.7,
    "wait": 1.0, "launch": 1.0, "once": 0.5, "memory": 1.0, "cached": 0.5,
}  # fmt: skip
# Published networks are too large to tell what a node costs that does nothing. Counted for ONNX Runtime on an emulated
# Cortex-A72: 2,300 instructions for a Reshape, 8,000 for a convolution of 128 products, 50,000 once an inference, which
# are 2, 7 and 40 microseconds at 1 GHz; measured on an AVX512 Xeon: 1, 4 and 17. Other runtimes' rows on one thread ask
# for more, since layers change layouts and formats there.
_COUNTED = {
    "dispatch": Prior(math.log(0.8), 0.7),
    "dispatch|onnxruntime": Prior(-2.0, 0.4),
    "run": Prior(math.log(0.17), 0.5),
} | {f"dispatch|{name}": Prior(0.0, 0.8) for name in ("ncnn", "tflite", "armnn", "openvino", "tnn", "mnn")}
_USUAL_MAC, _USUAL_MOVE = 1.5, 2.0
_ON_GPU = ("tensorrt", "onnxruntime-cuda")


def prior(name: str) -> Prior:
    """What a parameter is before the fit: a usual figure for all, nothing for what one runtime adds to it."""
    if name in _COUNTED:
        return _COUNTED[name]
    base, _, rest = name.partition("|")
    if base in ("board", "lab"):
        # One GPU's labs differ by up to 3x: such a lab must not pull the others along.
        return Prior(0.0, 0.25 if base == "board" else 0.15, robust=any(name in rest for name in _ON_GPU))
    if base == "threads/curve":
        return Prior(0.02, 0.03, 0.0, 0.08)
    if base == "threads/even":
        return Prior(0.0, 0.15, -0.2, 0.2) if rest else Prior(0.3, 0.2, 0.2, 0.8)
    if base == "threads/uneven":
        return Prior(0.2, 0.15, 0.0, 0.8)
    if base.startswith("threads/"):
        if rest:
            return Prior(0.0, 0.05, -0.2, 0.1)
        return Prior(0.9 if base.endswith("heavy") else 0.75, 0.1, 0.3, 0.95)
    if base.startswith(("core/", "runtime/")):
        return Prior(0.0, 0.3)
    if base.endswith(("/fp32", "/fp16", "/int8")):
        return Prior(0.0, 0.25 if rest else 0.35)
    if rest:
        return Prior(0.0, 0.4)
    usual = _USUAL.get(base) or _USUAL.get(base.split("/")[0])
    if usual is None:
        usual = _USUAL_MAC if base.startswith("mac/") else _USUAL_MOVE
    return Prior(math.log(usual), 0.7)


def cases_of(rows: Sequence[Row], networks: Mapping[tuple[str, str], Workload]) -> list[Case]:
    """One case for each row, in order. A cell of many rows weighs less than as many cells of one."""
    cells = Counter(row.cell for row in rows)
    usual = _usual_labs(rows)
    return [
        Case(
            terms=row_terms(row, networks),
            offsets=(_board(row), *(lab for lab in (_lab(row),) if lab not in usual)),
            log_seconds=math.log(row.ms / 1000),
            weight=cells[row.cell] ** -0.5,
        )
        for row in rows
    ]


def _board(row: Row) -> str:
    """What a board is off by under a runtime."""
    return f"board|{row.device}|{row.runtime.chain[0]}"


def _lab(row: Row) -> str:
    return f"lab|{row.lab}|{row.runtime.name}|{row.precision}"


def _usual_labs(rows: Sequence[Row]) -> set[str]:
    """Labs with more than half of a runtime's cells: what they are off by is the runtime's."""
    cells = Counter(
        (row.runtime.name, row.precision, _lab(row)) for row in {row.cell: row for row in rows}.values()
    )
    whole: Counter[tuple[str, str]] = Counter()
    for (runtime, precision, _), count in cells.items():
        whole[runtime, precision] += count
    return {
        lab for (runtime, precision, lab), count in cells.items() if 2 * count > whole[runtime, precision]
    }


def row_terms(row: Row, networks: Mapping[tuple[str, str], Workload]) -> Terms:
    return terms_of(*row_case(row, networks))


def row_case(
    row: Row, networks: Mapping[tuple[str, str], Workload]
) -> tuple[OpTable, Hardware, RuntimeKind, str, int, slice]:
    """What pricing and likeness ask of a row."""
    table = columns_of(network_of(row, networks))
    return table, row.hardware, row.runtime, row.precision, row.threads or 1, row.clusters


def network_of(row: Row, networks: Mapping[tuple[str, str], Workload]) -> Workload:
    """The row's network; ncnn runs files of its own.

    Raises:
        KeyError: its architecture is not in the table.
    """
    found = find_architecture(networks, row.model, row.shape, row.runtime.name)
    if found is None:
        raise KeyError(row.model)
    return found


_TABLES: dict[int, tuple[Workload, OpTable]] = {}


def columns_of(workload: Workload) -> OpTable:
    """A network's operators, identical ones once with their count: the fit has less to add up."""
    key = id(workload)
    if key not in _TABLES:
        counts = Counter(replace(operator, node="") for operator in workload.operators)
        _TABLES[key] = (workload, op_table(list(counts), list(counts.values())))
    return _TABLES[key][1]
