"""What ``edgekd profile`` says of files that no clock measured: estimated, or run on an emulated core."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from edgekd.cli.output import show, write_result

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd.cli.asked import Asked
    from edgekd.device import DeviceSpec
    from edgekd.profiles.predicted import OperatorTime, Predicted

_SLOWEST = 12

# One file on one board: the file's label and what was found.
Row = tuple[str, "Predicted"]


def predict_asked(asked: Asked, *, emulated: bool) -> list[Row]:
    """Every file on every device; where emulation is not set up, the estimate, saying so."""
    from edgekd.cli.progress import progress_bar
    from edgekd.errors import MissingDependencyError
    from edgekd.profiles.emulation.api import emulate
    from edgekd.profiles.estimation.api import estimate
    from edgekd.profiles.throughput import at_each_load

    asked.check_predicted(emulated=emulated)
    rows: list[Row] = []
    specs = asked.specs()
    loads = at_each_load(asked.labels(), asked.batches, (1,))
    total = len(specs) * len(loads)
    with progress_bar() as progress:
        for number, spec in enumerate(specs):
            for place, (label, load) in enumerate(loads.items()):
                path, done = load.path, number * len(loads) + place
                common: dict[str, Any] = {"threads": asked.threads, "batch": load.batch, "shape": asked.shape}
                if emulated:

                    def told(step: str, where: str = f"{label} on {spec.name}", done: int = done) -> None:
                        progress(f"emulate {where}: {step}", done, total)

                    try:
                        rows.append((label, emulate(path, spec, progress=told, **common)))
                        continue
                    except MissingDependencyError as error:
                        typer.echo(f"warning: {error}; estimated instead", err=True)
                        emulated = False
                for runtime in asked.runtimes or (None,):
                    _check_loads(path, spec, runtime)
                rows += [
                    (label, estimate(path, spec, runtime=runtime, precision=asked.precision,
                                     power_mode=asked.power_mode, **common))
                    for runtime in asked.runtimes or (None,)
                ]  # fmt: skip
    return rows


def _check_loads(path: Path, spec: DeviceSpec, runtime: str | None) -> None:
    """A file that the board's own runtime cannot load is refused, however fast it would be."""
    from edgekd.device import check_opset
    from edgekd.profiles import read_summary

    if runtime in (None, spec.runtime):
        check_opset(spec, read_summary(path).opset)


def print_predicted(rows: Sequence[Row], *, operators: bool, json_to: str | None) -> None:
    """Point, range and basis of each; where the milliseconds go; notes on stderr."""
    if write_result({"reports": [{"file": label, **found.to_json()} for label, found in rows]}, json_to):
        return
    show(_table(rows))
    for basis, kind, whose in _bases(rows):
        typer.echo(f"{kind}{whose}: {basis}")
    for label, found in rows:
        if operators and found.operators:
            typer.echo(f"\n{label} on {found.device}, by family")
            show(_families(found.operators))
            typer.echo(
                f"\nits {min(_SLOWEST, len(found.operators))} slowest of {len(found.operators)} operators"
            )
            show(_slowest(found.operators))
    for text in dict.fromkeys(note for _, found in rows for note in found.notes):
        typer.echo(f"note: {text}", err=True)


def _bases(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """What the numbers rest on: the basis, the kind, and whose it is where there are several."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for label, found in rows:
        groups[found.basis, found.kind].append(f"{label} on {found.device}")
    several = len(groups) > 1
    return [
        (basis, kind, f" ({'; '.join(dict.fromkeys(whose))})" if several else "")
        for (basis, kind), whose in groups.items()
    ]


def grid(*names: str, left: int) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for position, name in enumerate(names):
        table.add_column(name, justify="left" if position < left else "right")
    return table


def _table(rows: Sequence[Row]) -> Any:
    several = len({found.batch for _, found in rows}) == 1 < len(rows)
    batched = any(found.batch > 1 for _, found in rows)
    names = ["file", "device", "runtime", "kind", "precision", "threads", "p50 ms", "80 % range"]
    names += [*(["items/s"] if batched else []), "validated", *(["x faster than first"] if several else [])]
    table = grid(*names, left=5)
    first: dict[str, float] = {}
    for label, found in rows:
        device = f"{found.device} ({found.power_mode})" if found.power_mode else found.device
        base = first.setdefault(found.device, found.p50_ms)
        cells = [
            label, device, f"{found.runtime} {found.runtime_version}".strip(), found.kind, found.precision,
            str(found.threads), f"~{digits(found.p50_ms)}", f"{digits(found.low_ms)}..{digits(found.high_ms)}",
            *([f"~{digits(1e3 * found.batch / found.p50_ms)}"] if batched else []),
            "yes" if found.validated else "no",
        ]  # fmt: skip
        if several:
            cells.append("" if base is found.p50_ms else f"~{base / found.p50_ms:.2f}")
        table.add_row(*cells)
    return table


def _families(operators: Sequence[OperatorTime]) -> Any:
    groups: dict[str, list[OperatorTime]] = defaultdict(list)
    for operator in operators:
        groups[operator.family].append(operator)
    total = sum(operator.milliseconds for operator in operators) or 1.0
    table = grid("family", "operators", "ms", "share", "MMACs", "MB moved", "bound by", left=1)
    spent = {name: sum(operator.milliseconds for operator in group) for name, group in groups.items()}
    for name in sorted(groups, key=lambda name: -spent[name]):
        group = groups[name]
        bounds: dict[str, float] = defaultdict(float)
        for operator in group:
            bounds[operator.bound] += operator.milliseconds
        table.add_row(
            name, str(len(group)), digits(spent[name]), f"{spent[name] / total:.0%}",
            f"{sum(o.macs for o in group) / 1e6:.1f}", f"{sum(o.bytes for o in group) / 1e6:.1f}",
            max(bounds, key=lambda bound: bounds[bound]),
        )  # fmt: skip
    return table


def _slowest(operators: Sequence[OperatorTime]) -> Any:
    table = grid("operator", "type", "family", "ms", "MMACs", "MB moved", "bound by", left=3)
    for o in sorted(operators, key=lambda operator: -operator.milliseconds)[:_SLOWEST]:
        table.add_row(o.node, o.op, o.family, digits(o.milliseconds), f"{o.macs / 1e6:.1f}",
                      f"{o.bytes / 1e6:.1f}", o.bound)  # fmt: skip
    return table


def digits(milliseconds: float) -> str:
    """Three significant digits: no prediction knows more."""
    if milliseconds >= 100:
        return f"{milliseconds:.0f}"
    if milliseconds < 0.0005:
        return "0"
    return f"{milliseconds:.3g}"
