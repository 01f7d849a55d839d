"""What a change of the model's form is worth, on boards and families that were named for choosing.

    .venv/bin/python benchmarks/latency/choose.py [cpu] [gpu]

Half of the boards (of each style of cores) and half of the families of models, dealt by a seed before any variant
was tried. Only their errors may be looked at while choosing; ``validate.py`` judges on all.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from collections.abc import Callable, Sequence

import numpy as np
from architecture_table import read_architectures
from cases import cases_of, prior
from fit import usable_rows
from folds import without
from judge import summary
from residuals import Neighbours, neighbours_of
from rows import Row
from solver import Problem, build
from validate import PUBLIC

SEED = 2026
_FOLDS = 6


def for_choosing(rows: Sequence[Row]) -> tuple[frozenset[str], frozenset[str]]:
    """Boards and families. A board belongs to the first style that it has rows of."""
    random = np.random.default_rng(SEED)
    boards: set[str] = set()
    seen: set[str] = set()
    for style in sorted({row.style for row in rows}):
        names = sorted({row.board for row in rows if row.style == style} - seen)
        seen.update(names)
        boards.update([names[at] for at in random.permutation(len(names))][::2])
    families = sorted({row.family for row in rows})
    return frozenset(boards), frozenset([families[at] for at in random.permutation(len(families))][::2])


def error(
    rows: Sequence[Row],
    problem: Problem,
    key: Callable[[Row], str],
    *,
    offsets: bool,
    neighbours: Neighbours,
) -> str:
    """Of rows that are left out; ``key`` is empty for rows that stay."""
    log = without(rows, problem, key, offsets=offsets, seed=SEED, folds=_FOLDS, neighbours=neighbours)
    places = [at for at, row in enumerate(rows) if key(row) and row.runtime.name in PUBLIC]
    found = summary([rows[at] for at in places], log[places])
    mean = float(np.mean(abs(problem.target[places] - log[places])))
    return f"median of cells {found['median_error']:.1%}, mean of logarithms {mean:.4f}"


def main() -> None:
    networks = read_architectures()
    for kind in sys.argv[1:] or ("cpu", "gpu"):
        rows = usable_rows(networks, gpu=kind == "gpu")
        problem = build(cases_of(rows, networks), prior)
        boards, families = for_choosing(rows)
        neighbours = neighbours_of(rows, networks)

        def board(row: Row, chosen: frozenset[str] = boards) -> str:
            return row.board if row.board in chosen else ""

        def model(row: Row, chosen: frozenset[str] = families) -> str:
            return row.model if row.family in chosen else ""

        sys.stdout.write(
            f"{kind}, board left out: {error(rows, problem, board, offsets=False, neighbours=neighbours)}\n"
        )
        sys.stdout.write(
            f"{kind}, model left out: {error(rows, problem, model, offsets=True, neighbours=neighbours)}\n"
        )


if __name__ == "__main__":
    main()
