"""Fit of the emulated latency on published ONNX Runtime rows, and how far it is from models that it has not seen.

Three parameters a core, drawn to physical values where the rows say little: an instruction takes what its core's
manual says, a line takes its part of the memory's bandwidth. Least squares of relative errors, in closed form. Each
model is predicted once by a fit without it. Takes a second; ``--write`` puts the parameters into the package.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from count_emulated import BOARDS, stored

from edgekd.device import load_device
from edgekd.profiles.emulation import model as emulation
from edgekd.profiles.emulation.cores import emulated_core
from edgekd.profiles.emulation.stored import stored_work
from edgekd.profiles.estimation.hardware import read_hardware

PUBLISHED = Path(__file__).with_name("published.csv")
PARAMETERS = ("waits_mac", "waits_other", "share")
# Real cycles over the manual's, and the inverse of the share of bandwidth: out-of-order cores with caches that miss.
PRIOR = np.array([1.0, 1.5, 2.5])
STRENGTH = 0.01  # of a prior against one published row
# Another laboratory, same runtime and model: median ratio 1.19 (published.csv's README).
LABORATORY = math.log(1.19)
QUANTILE = 0.8


@dataclass(frozen=True)
class Board:
    """Published rows of one board: ``terms`` ``(n, 3)`` are what the parameters multiply, in milliseconds."""

    name: str
    core: str
    models: tuple[str, ...]
    terms: np.ndarray
    published: np.ndarray
    instructions: tuple[int, ...]

    def predicted(self, weights: np.ndarray) -> np.ndarray:
        return np.asarray(self.terms @ weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="into profiles/emulation/timing.json")
    options = parser.parse_args()
    boards = [board(name) for name in BOARDS]
    errors = {each.name: left_out(each) for each in boards}
    for each in boards:
        weights = solve(each.terms, each.published)
        print(f"\n{each.name}, {each.core}: {describe(weights)}")
        print(f"  {'model':24} published ms  left out ms  error")
        for name, real, error in zip(each.models, each.published, errors[each.name], strict=True):
            print(f"  {name:24} {real:12.1f} {real * (1 + error):12.1f} {error:+7.1%}")
        print(f"  {summary(errors[each.name])}")
    everything = np.concatenate(list(errors.values()))
    print(f"\nleave one model out, {len(everything)} rows: {summary(everything)}")
    spread = widened(everything)
    related, other = unseen(boards), other_cores(boards)
    print(
        f"80 % range: a factor of {spread:.2f}; of a core by its relative {related:.2f}, by another core {other:.2f}"
    )
    if options.write:
        write(boards, spread, related, other)


def unseen(boards: list[Board]) -> float:
    """Rows that no fit saw: a core by its relative, and int8. Returns the factor that holds 80 % of the former."""
    fitted = {each.core: solve(each.terms, each.published) for each in boards}
    factor = 1.0
    for name, precision, by in (
        ("raspberry-pi-5", "int8", "Cortex-A76"),
        ("jetson-orin-nano", "fp32", "Cortex-A76"),
    ):
        rows = board(name, precision)
        if not len(rows.models):
            continue
        errors = rows.predicted(fitted[by]) / rows.published - 1
        print(f"\nnot fitted: {name} ({rows.core}), {precision}, by the parameters of {by}")
        for model, real, error in zip(rows.models, rows.published, errors, strict=True):
            print(f"  {model:24} {real:12.1f} {real * (1 + error):12.1f} {error:+7.1%}")
        print(f"  {summary(errors)}")
        factor = widened(errors)
    return factor


def widened(errors: np.ndarray) -> float:
    """The factor within which 80 % of other rows, of other laboratories too, are expected."""
    return math.exp(math.hypot(float(np.quantile(np.abs(np.log1p(errors)), QUANTILE)), LABORATORY))


def board(name: str, precision: str = "fp32") -> Board:
    """The board's published rows whose models were counted."""
    spec = load_device(name)
    core, hardware = emulated_core(spec), read_hardware(spec)
    counted = stored()
    models, terms, published, instructions = [], [], [], []
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            known = counted.get((core.name, row["model"]))
            same = (row["device"], row["runtime"], row["precision"]) == (name, "onnxruntime", precision)
            if known and same and known.get("precision", "fp32") == precision:
                found = stored_work(known, core.style)
                models.append(row["model"])
                terms.append(
                    emulation.terms(found, hardware, int(row["threads"] or hardware.clusters[0].cores))
                )
                published.append(float(row["latency_ms"]))
                instructions.append(sum(known["whole"]["instructions"].values()))
    return Board(name, core.name, tuple(models), np.array(terms), np.array(published), tuple(instructions))


def solve(terms: np.ndarray, published: np.ndarray) -> np.ndarray:
    """Weights that minimise the squared relative errors, and their own relative distance from the prior."""
    pull = math.sqrt(STRENGTH)
    rows = np.concatenate([terms / published[:, None], np.diag(pull / PRIOR)])
    goal = np.concatenate([np.ones(len(published)), np.full(len(PRIOR), pull)])
    return np.asarray(np.linalg.lstsq(rows, goal, rcond=None)[0])


def left_out(rows: Board) -> np.ndarray:
    """Relative error of each model, predicted by a fit on the others."""
    found = []
    for position in range(len(rows.models)):
        others = np.arange(len(rows.models)) != position
        weights = solve(rows.terms[others], rows.published[others])
        found.append(float(rows.terms[position] @ weights / rows.published[position] - 1))
    return np.array(found)


def other_cores(boards: list[Board]) -> float:
    """The factor within which 80 % of a board's rows lie when only the other core was fitted."""
    wrong = []
    for each in boards:
        others = [solve(other.terms, other.published) for other in boards if other is not each]
        mean = np.exp(np.mean(np.log(others), axis=0))
        wrong.append(np.abs(np.log(each.predicted(mean) / each.published)))
    return math.exp(float(np.quantile(np.concatenate(wrong), QUANTILE)))


def write(boards: list[Board], spread: float, related: float, other: float) -> None:
    file = Path(emulation.__file__).with_name("timing.json")
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    fitted = {}
    for each in boards:
        mac, rest, memory = solve(each.terms, each.published)
        values = (mac, rest, 1 / memory)
        named = {name: round(float(value), 4) for name, value in zip(PARAMETERS, values, strict=True)}
        hardware = read_hardware(load_device(each.name))
        near = {"ghz": hardware.clusters[0].ghz, "bandwidth": round(hardware.bandwidth, 3)}
        fitted[each.core] = {**named, "spread": round(spread, 3), **near, "smallest": min(each.instructions)}
    document |= {"fitted": fitted, "spread_of_relatives": round(related, 3)}
    document |= {"spread_of_other_cores": round(other, 3)}
    file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def describe(weights: np.ndarray) -> str:
    mac, other, memory = weights
    return f"waits_mac {mac:.2f}, waits_other {other:.2f}, share of bandwidth {1 / memory:.2f}"


def summary(errors: np.ndarray) -> str:
    return f"median absolute error {np.median(np.abs(errors)):.1%}, worst {np.abs(errors).max():.1%}"


if __name__ == "__main__":
    main()
