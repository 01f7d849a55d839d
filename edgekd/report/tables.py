"""The tables of a report, built once as text; the page, Markdown and the terminal only draw them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edgekd.report.facts import device_name, files_of, is_label_free, main_latency, slowest_operators, speedup
from edgekd.report.format import (
    MISSING,
    byte_count,
    clean,
    duration,
    milliseconds,
    percent,
    quantity,
    ratio,
    significant,
    span,
)
from edgekd.report.schema import Report
from edgekd.report.schema_base import Metrics
from edgekd.report.schema_deployed import DeployFacts, LatencyFacts


@dataclass(frozen=True)
class Column:
    """``kind``: ``text``, ``number`` (to the right) or ``tag`` (measured, emulated, estimated)."""

    name: str
    kind: str = "number"


@dataclass(frozen=True)
class Table:
    """Rows of clean one-line text; ``emphasised`` are indices of rows that matter most."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    emphasised: frozenset[int] = field(default_factory=frozenset)


def text_column(name: str) -> Column:
    """A column to the left."""
    return Column(name, "text")


def _number(value: float | None, digits: int = 4) -> str:
    return MISSING if value is None else f"{value:.{digits}f}"


_SCORES: dict[str, Callable[[Metrics], str]] = {
    "top-1": lambda metrics: percent(metrics.top1),
    "micro F1": lambda metrics: percent(metrics.f1_micro),
    "macro F1": lambda metrics: percent(metrics.f1_macro),
    "exact match": lambda metrics: percent(metrics.exact_match),
    "agreement": lambda metrics: percent(metrics.agreement),
    "ECE": lambda metrics: _number(metrics.ece),
    "NLL": lambda metrics: _number(metrics.nll),
}
_ALWAYS = ("top-1", "agreement", "ECE", "NLL")


def stages_table(report: Report) -> Table:
    """Every stage and, for texts, the baseline without a network; F1 where the task has it."""
    found: list[tuple[str, Metrics, tuple[str, ...]]] = [
        (stage.name, stage.metrics,
         (quantity(stage.params), quantity(stage.nonzero_params), quantity(stage.macs), duration(stage.seconds)))
        for stage in report.stages
    ]  # fmt: skip
    if report.text_baseline is not None:
        own = report.text_baseline
        found.append((own.name, own.metrics, (MISSING, MISSING, MISSING, duration(own.seconds))))
    several = any(metrics.f1_micro is not None for _, metrics, _ in found)
    scores = {
        name: cell
        for name, cell in _SCORES.items()
        if (name in _ALWAYS and not (several and name in ("top-1", "ECE")))
        or any(cell(metrics) != MISSING for _, metrics, _ in found)
    }
    rows = [
        (clean(name), *(cell(metrics) for cell in scores.values()), *costs) for name, metrics, costs in found
    ]
    names = (*scores, "params", "non-zero", "MACs", "time")
    return Table("Stages", (text_column("stage"), *map(Column, names)), rows)


def _accuracy_name(report: Report) -> str:
    return next((entry.metrics.accuracy_name for entry in report.deploy), "top-1")


def deploy_table(report: Report) -> Table:
    """One row a deployed file: what a reader asks first."""
    label_free = is_label_free(report)
    before = ("agreement" if label_free else _accuracy_name(report), "size", "p50")
    after = ("threads", "vs student fp32", "vs teacher", "parity", "2:4 violations", "integer coverage")
    columns = (text_column("device"), *map(Column, before), Column("latency", "tag"), *map(Column, after))
    rows = []
    for entry in report.deploy:
        latency = main_latency(entry.latency)
        rows.append(
            (
                clean(device_name(entry)),
                percent(entry.metrics.agreement if label_free else entry.metrics.accuracy),
                byte_count(entry.size_bytes),
                milliseconds(latency.p50_ms, latency.kind) if latency else MISSING,
                latency.kind if latency else MISSING,
                str(latency.threads) if latency else MISSING,
                ratio(speedup(entry, "student")),
                ratio(speedup(entry, "teacher")),
                percent(entry.parity.agreement) if entry.parity else MISSING,
                f"{entry.sparsity.violations:,}" if entry.sparsity else MISSING,
                percent(entry.quantization.coverage) if entry.quantization else MISSING,
            )
        )
    return Table("Deployed files", columns, rows)


def files_table(report: Report, entry: DeployFacts) -> Table:
    """The deployed file and its baselines: bytes and metrics."""
    numbers = ("size", "compressed", _accuracy_name(report), "agreement", "ECE", "NLL")
    columns = (text_column("file"), *map(Column, numbers), text_column("path"))
    rows = []
    for file in files_of(report, entry):
        metrics = file.metrics if file.evaluated else Metrics()
        sizes = (byte_count(file.size_bytes), byte_count(file.compressed_bytes))
        shares = (percent(metrics.accuracy), percent(metrics.agreement))
        losses = (_number(metrics.ece), _number(metrics.nll))
        rows.append((clean(file.label), *sizes, *shares, *losses, clean(file.file)))
    return Table(f"Files for {clean(device_name(entry))}", columns, rows, frozenset({0}))


def latency_table(report: Report, entry: DeployFacts) -> Table:
    """What is the same in every row (batch, runtime) stands in the title instead of in a column."""
    found = [(file, row) for file in files_of(report, entry) for row in file.latency]
    constant: list[str] = []
    columns = [text_column("file"), Column("kind", "tag"), Column("threads")]
    cells: list[Callable[[LatencyFacts], str]] = [lambda row: str(row.threads)]
    for name, told in (("batch", lambda row: f"batch {row.batch}"), ("runtime", _runtime)):
        values = {told(row) for _, row in found}
        if len(values) == 1:
            constant.append(values.pop())
        else:
            columns.append(text_column(name))
            cells.append(told)
    columns += map(
        Column, ("p50 ms", "p90 ms", "p99 ms", "mean ms", "low … high ms", "samples", "peak memory")
    )
    rows = [
        (clean(file.label), row.kind, *(cell(row) for cell in cells), *_latency_cells(row))
        for file, row in found
    ]
    title = ", ".join([f"Latency on {clean(device_name(entry))}", *constant])
    own = frozenset(index for index, (file, _) in enumerate(found) if file.role == "deployed")
    return Table(title, columns, rows, own)


def _runtime(row: LatencyFacts) -> str:
    return clean(f"{row.runtime} {row.runtime_version or ''}".strip())


def _latency_cells(row: LatencyFacts) -> tuple[str, ...]:
    times = (
        milliseconds(value, row.kind).removesuffix(" ms")
        for value in (row.p50_ms, row.p90_ms, row.p99_ms, row.mean_ms)
    )
    between = MISSING
    if row.low_ms is not None and row.high_ms is not None:
        between = span(row.low_ms, row.high_ms)
    samples = f"{row.samples:,}" if row.samples else MISSING
    return (*times, between, samples, byte_count(row.peak_memory_bytes))


def operators_table(entry: DeployFacts) -> Table:
    columns = (text_column("operator"), text_column("type"), Column("mean"), Column("share"))
    rows = [
        (clean(op.name), clean(op.op_type), f"{significant(op.mean_us)} µs", percent(op.share, 1))
        for op in slowest_operators(entry)
    ]
    return Table(f"Slowest operators on {clean(device_name(entry))}", columns, rows)
