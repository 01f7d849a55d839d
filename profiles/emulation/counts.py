"""What the plugin wrote, and the runtime's own profile beside it, to counts per operator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgekd.profiles.emulation.decode import instruction_class
from edgekd.profiles.emulation.families import family, original_name, tensor_shapes

CACHE_LEVELS = 3
_SUFFIX = "_kernel_time"
Block = tuple[int, ...]  # a basic block's instruction words


@dataclass(frozen=True)
class Region:
    """What ran between two marks.

    Attributes:
        kind: ``clock`` when the runtime read the clock at its end, ``end`` at the last mark of a run.
        lines: for each cache level the lines it took in and the changed lines it gave down, 64 bytes each.
        blocks: block to the number of times that it ran.
    """

    kind: str
    accesses: int
    lines: tuple[tuple[int, int], ...]
    blocks: Mapping[Block, int]

    @property
    def instructions(self) -> int:
        return sum(len(block) * runs for block, runs in self.blocks.items())


@dataclass(frozen=True)
class OperatorCounts:
    """One operator of the optimized graph, in one inference.

    Attributes:
        node: its name; a fused node has one that the runtime made.
        bytes: of its inputs, weights and outputs together, as the runtime states them.
    """

    node: str
    op: str
    family: str
    macs: int
    bytes: int
    region: Region


@dataclass(frozen=True)
class Counts:
    """One inference.

    Attributes:
        whole: all of it, without the runtime's profiler.
        operators: in the order of execution, with the profiler; empty where they could not be told apart.
    """

    whole: Region
    operators: tuple[OperatorCounts, ...] = field(default=())


def classes(region: Region) -> dict[str, int]:
    """Instructions by class."""
    found: Counter[str] = Counter()
    for block, runs in region.blocks.items():
        for word in block:
            found[instruction_class(word)] += runs
    return dict(found)


def read_runs(lines: Iterable[str]) -> list[list[Region]]:
    """The plugin's lines to regions, one list for each counted run.

    Raises:
        ValueError: a line that the plugin does not write, such as one cut short.
    """
    blocks: dict[int, Block] = {}
    runs: list[list[Region]] = [[]]
    for line in lines:
        tag, *parts = line.split()
        if tag == "B":
            blocks[int(parts[0])] = tuple(int(word, 16) for word in parts[1:])
        elif tag == "R":
            runs[-1].append(_region(parts, blocks))
            if parts[0] == "end":
                runs.append([])
        else:
            raise ValueError(f"not a record of the plugin: {line[:40]!r}")
    return runs[:-1]


def _region(parts: Sequence[str], blocks: Mapping[int, Block]) -> Region:
    kind, loads, stores = parts[0], int(parts[1]), int(parts[2])
    cache = [int(part) for part in parts[3 : 3 + 2 * CACHE_LEVELS]]
    ran: Counter[Block] = Counter()
    for part in parts[3 + 2 * CACHE_LEVELS :]:
        block, runs = part.split(":")
        ran[blocks[int(block)]] += int(runs)
    return Region(kind, loads + stores, tuple(zip(cache[::2], cache[1::2], strict=True)), dict(ran))


def merge(regions: Sequence[Region]) -> Region:
    """Several regions as one."""
    blocks: Counter[Block] = Counter()
    for region in regions:
        blocks.update(region.blocks)
    lines = tuple(
        (sum(region.lines[level][0] for region in regions), sum(region.lines[level][1] for region in regions))
        for level in range(CACHE_LEVELS)
    )
    return Region("end", sum(region.accesses for region in regions), lines, dict(blocks))


def assign(
    regions: Sequence[Region],
    events: Sequence[Mapping[str, Any]],
    known: Mapping[str, tuple[str, int]] | None = None,
) -> tuple[OperatorCounts, ...]:
    """Which region is which operator.

    The profiler reads the clock before and after each node, so that nodes and what lies between them take
    turns. Where the first node stands follows from the counts: nodes work, the gaps between them do not.

    Args:
        regions: of one run under the profiler.
        events: the profiler's trace, of that run alone or with others of the same graph before it.
        known: family and multiply-accumulates of nodes by their names in the file.
    """
    nodes = [e for e in events if e.get("cat") == "Node" and str(e.get("name", "")).endswith(_SUFFIX)]
    times = Counter((str(event["name"]), event.get("args", {}).get("node_index")) for event in nodes)
    if len(set(times.values())) != 1:
        return ()  # none at all, or some node more often than others: a loop
    nodes = nodes[-len(times) :]
    room = len(regions) - 2 * len(nodes)
    if room < 0:
        return ()
    work = [region.instructions for region in regions]
    first = max(range(room + 1), key=lambda start: sum(work[start : start + 2 * len(nodes) : 2]))
    return tuple(_operator(event, regions[first + 2 * k], known or {}) for k, event in enumerate(nodes))


def _operator(
    event: Mapping[str, Any], region: Region, known: Mapping[str, tuple[str, int]]
) -> OperatorCounts:
    facts, node = event.get("args", {}), str(event["name"]).removesuffix(_SUFFIX)
    op, outputs = str(facts.get("op_name", "")), tensor_shapes(facts.get("output_type_shape", []))
    inputs = tensor_shapes(facts.get("input_type_shape", []))
    kind, macs = known.get(original_name(node)) or family(op, inputs, outputs[0] if outputs else [])
    sizes = (int(facts.get(f"{part}_size", 0)) for part in ("activation", "parameter", "output"))
    return OperatorCounts(
        node=node,
        op=op,
        family=kind,
        macs=macs,
        bytes=sum(sizes),
        region=region,
    )
