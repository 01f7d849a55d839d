"""How well other boards' own measurements rank a board's networks: what no estimate of it is likely to exceed.

    .venv/bin/python benchmarks/latency/ceiling.py [DEVICE ...]

For each device (those below the bar in ``latency_estimate.json`` unless named): Spearman's rank correlation of its
rows with those of every board and runtime that share its networks, all threads; and of the fastest with the slowest
of the same hundred runs, where a source gives both.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import csv
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping

from architecture_table import read_architectures
from fit import usable_rows
from rows import Row
from scipy.stats import spearmanr

_ROOT = Path(__file__).parents[2]
_RESULT = _ROOT / "benchmarks" / "results" / "latency_estimate.json"
_BAR = 0.93
_FEWEST = 8

Times = Mapping[tuple[str, str, str], float]


def times_of(rows: list[Row]) -> dict[tuple[str, str], Times]:
    """Milliseconds of each network in each precision, by device and runtime; the rows on the most threads."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.device, row.runtime.name].append(row)
    found = {}
    for key, some in groups.items():
        most = max(row.threads or 1 for row in some)
        found[key] = {
            (row.model, row.shape, row.precision): row.ms for row in some if (row.threads or 1) == most
        }
    return found


def agreement(one: Times, other: Times) -> tuple[float, int] | None:
    """Rank correlation over the networks of both, and how many they are; None: too few."""
    shared = sorted(set(one) & set(other))
    if len(shared) < _FEWEST:
        return None
    found = spearmanr([one[each] for each in shared], [other[each] for each in shared])
    return float(found.statistic), len(shared)


def within_runs(device: str) -> Iterator[tuple[float, float]]:
    """Fastest and slowest of the runs behind each row."""
    with (Path(__file__).parent / "published.csv").open(encoding="utf-8", newline="") as file:
        for entry in csv.DictReader(file):
            notes = dict(part.split("=", 1) for part in entry["notes"].split("; ") if "=" in part)
            if entry["device"] == device and {"min", "max"} <= notes.keys():
                yield float(notes["min"]), float(notes["max"])


def main() -> None:
    ranks = json.loads(_RESULT.read_text(encoding="utf-8"))["cpu"]["model_out"]["spearman_by_board"]
    times = times_of(usable_rows(read_architectures(), gpu=False))
    for device in sys.argv[1:] or [name for name, rank in ranks.items() if rank < _BAR]:
        sys.stdout.write(f"{device}: estimated {ranks.get(device, float('nan')):.3f}\n")
        pairs = list(within_runs(device))
        if len(pairs) >= _FEWEST:
            inside = spearmanr(*zip(*pairs, strict=True)).statistic
            sys.stdout.write(f"  {inside:.3f}  fastest against slowest of the same runs, {len(pairs)} rows\n")
        for runtime in sorted(name for owner, name in times if owner == device):
            others = {
                key: found
                for key, theirs in times.items()
                if key != (device, runtime) and (found := agreement(times[device, runtime], theirs))
            }
            for key, (rank, count) in sorted(others.items(), key=lambda pair: -pair[1][0])[:5]:
                sys.stdout.write(f"  {rank:.3f}  {runtime} against {' '.join(key)}, {count} networks\n")


if __name__ == "__main__":
    main()
