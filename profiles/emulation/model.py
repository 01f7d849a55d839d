"""Counts of one inference to milliseconds on a board: a model of few parameters, each of them physical.

::

    time of all cores = (waits_mac x cycles of multiply-adds + waits_other x cycles of all else) / clock
                        x (share that one thread runs alone + the rest / speed-up)
                      + lines beyond the level-2 cache x 64 bytes / (share x the board's memory bandwidth)

Cycles per class come from the core's published timings, clock and bandwidth from the board's facts, the lines
from the simulated caches; ``waits_mac``, ``waits_other`` and ``share`` are fitted for each core on published
latencies. So a board with the same core and another clock, cache or memory follows without a fit. A core without
published latencies takes those of its relative, and a wider range. With fewer threads both parts
take longer by Amdahl's law: a share far below 1 says that lines wait for the memory's latency, not for its bandwidth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekd.profiles.emulation.calibration import Calibration, calibration, speed_up, timing
from edgekd.profiles.emulation.counts import Counts, Region, classes
from edgekd.profiles.emulation.sharing import alone_share, is_alone, own_instructions
from edgekd.profiles.estimation.hardware import Hardware, read_hardware
from edgekd.profiles.predicted import OperatorTime

if TYPE_CHECKING:
    from edgekd.device_spec import DeviceSpec
    from edgekd.profiles.emulation.cores import EmulatedCore

MULTIPLY_ADDS = ("simd-fma", "simd-dot", "simd-multiply")
LINE_BYTES = 64
LINES_BEYOND = 1  # what leaves this cache level, counted from 0, costs bandwidth


@dataclass(frozen=True)
class Work:
    """What one inference, or one operator, asks of a core.

    Attributes:
        mac_cycles, other_cycles: of one thread, by the core's published timings.
        lines: 64 bytes each, moved beyond the level-2 cache in either direction.
        alone: share of the cycles that one thread runs, however many there are.
    """

    mac_cycles: float
    other_cycles: float
    lines: float
    alone: float = 0.0


@dataclass(frozen=True)
class Prediction:
    milliseconds: float
    low: float
    high: float
    threads: int
    validated: bool
    basis: str
    operators: tuple[OperatorTime, ...]
    notes: tuple[str, ...]


def work(instructions: Mapping[str, int], lines: float, style: str, alone: float = 0.0) -> Work:
    """Counted instructions by class to :class:`Work` on a core of this style."""
    cycles = timing()["cycles"][style]
    spent = {name: count * cycles.get(name, cycles["other"]) for name, count in instructions.items()}
    multiply = sum(spent.get(name, 0.0) for name in MULTIPLY_ADDS)
    return Work(multiply, sum(spent.values()) - multiply, lines, alone)


def terms(found: Work, board: Hardware, threads: int) -> tuple[float, float, float]:
    """Milliseconds that the three parameters multiply: multiply-adds, all else, memory at full bandwidth."""
    cluster = board.clusters[0]
    gain = speed_up(min(threads, cluster.cores))
    rate = cluster.ghz * 1e6 / (found.alone + (1.0 - found.alone) / gain)
    bandwidth = board.bandwidth * 1e6 * gain / speed_up(cluster.cores)
    return found.mac_cycles / rate, found.other_cycles / rate, found.lines * LINE_BYTES / bandwidth


def milliseconds(found: Work, board: Hardware, threads: int, by: Calibration) -> tuple[float, float]:
    """Time in the core and time for memory."""
    multiply, other, memory = terms(found, board, threads)
    return by.waits_mac * multiply + by.waits_other * other, memory / by.share


def predict(
    counts: Counts, spec: DeviceSpec, core: EmulatedCore, *, threads: int | None, precision: str
) -> Prediction:
    """Latency of what was counted.

    Args:
        threads: None for as many as the board's fast cores.
    """
    board = read_hardware(spec)
    cluster = board.clusters[0]
    threads = threads or cluster.cores
    by = calibration(core.name, core.style)
    spent = [each.region.instructions for each in counts.operators]
    alone = alone_share(counts.whole.instructions, spent)
    compute, memory = milliseconds(_work(counts.whole, core, alone), board, threads, by)
    total = compute + memory
    small = counts.whole.instructions < by.smallest / 2
    published = by.covers(board) and precision == "fp32" and threads == cluster.cores and not small
    spread = by.spread if published else max(by.spread, float(timing()["spread_of_other_precisions"]))
    basis = (
        f"{counts.whole.instructions / 1e6:.0f} M instructions and {_lines(counts.whole) * LINE_BYTES / 1e6:.0f} MB "
        f"beyond the caches, counted on an emulated {core.name}; {cluster.ghz:g} GHz, {threads} threads"
    )
    notes = [] if core.exact else [f"qemu's {core.emulator} stands in for {core.name}: same instructions"]
    if not by.fitted:
        notes.append(
            f"no published latencies of ONNX Runtime on a {core.name}: its timings are its relatives'"
        )
    elif not by.covers(board):
        notes.append(f"calibrated on a {core.name} at {by.ghz:g} GHz with {by.bandwidth:.1f} GB/s of memory")
    if small:
        notes.append(
            f"the smallest network published for this core takes {by.smallest / 1e6:.0f} M instructions,"
            " more than twice this one's"
        )
    if by.fitted and precision != "fp32":
        notes.append(f"calibrated on fp32; no published {precision} latencies of ONNX Runtime lie near")
    if threads > cluster.cores:
        notes.append(f"{threads} threads, but only {cluster.cores} fast cores: counted as {cluster.cores}")
    return Prediction(
        milliseconds=total,
        low=total / spread,
        high=total * spread,
        threads=threads,
        validated=published,
        basis=basis,
        operators=_operators(counts, core, board, threads, by, total),
        notes=tuple(notes),
    )


def _operators(
    counts: Counts, core: EmulatedCore, board: Hardware, threads: int, by: Calibration, total: float
) -> tuple[OperatorTime, ...]:
    """Each operator's part; scaled to the whole, because the profiler's own instructions are among theirs."""
    own = own_instructions(counts.whole.instructions, [each.region.instructions for each in counts.operators])
    parts = [
        milliseconds(_work(each.region, core, float(is_alone(alone))), board, threads, by)
        for each, alone in zip(counts.operators, own, strict=True)
    ]
    spent = sum(compute + memory for compute, memory in parts)
    return tuple(
        OperatorTime(
            node=each.node,
            op=each.op,
            family=each.family,
            milliseconds=(compute + memory) * total / spent,
            macs=each.macs,
            bytes=each.bytes,
            bound="memory" if memory > compute else "compute",
        )
        for each, (compute, memory) in zip(counts.operators, parts, strict=True)
    )


def _work(region: Region, core: EmulatedCore, alone: float) -> Work:
    return work(classes(region), _lines(region), core.style, alone)


def _lines(region: Region) -> int:
    return sum(region.lines[LINES_BEYOND])
