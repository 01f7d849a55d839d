"""Where the time goes: ONNX Runtime's own profiler, read into rows that name the network's layers."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgekd.errors import EdgeKDError, fault
from edgekd.profiles.inputs import Shape, random_inputs, text_limits
from edgekd.profiles.layers import layer_of, origins, with_inserted
from edgekd.profiles.onnx_graph import OnnxNode, read_nodes
from edgekd.profiles.runtimes.providers import short_names
from edgekd.profiles.session import open_session, run

_SUFFIX = "_kernel_time"
# Providers whose optimized graph ONNX Runtime can write; the others compile parts of it into something else.
_WRITABLE = frozenset({"cpu", "cuda", "xnnpack"})
_LARGEST = 1 << 30  # bytes of a file whose optimized graph is written beside it: a protobuf holds 2 GB


@dataclass(frozen=True)
class OperatorCost:
    """One node of the optimized graph.

    Attributes:
        node: its name; a fused node has a name that the runtime made.
        mean_us: microseconds of a usual inference (:func:`usual`), with the profiler on: read shares, not sums.
        share: of the time of all nodes, 0 to 1.
        position: in the order of execution.
        provider: that ran it, such as ``cpu``.
        nodes: of the file that it came from; empty for what the runtime inserted, such as a change of layout.
        layers: modules of the network that those belong to, the one with the weights first; of an inserted one,
            the module that it serves.
    """

    op_type: str
    node: str
    mean_us: float
    share: float
    position: int = 0
    provider: str = ""
    nodes: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()

    @property
    def layer(self) -> str:
        """The module that it counts for; empty where the file names none."""
        return self.layers[0] if self.layers else ""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "nodes": list(self.nodes), "layers": list(self.layers)}


@dataclass(frozen=True)
class LayerCost:
    """A module of the network: all operators that count for it.

    Attributes:
        operators: their types, in the order of execution.
    """

    layer: str
    mean_us: float
    share: float
    operators: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "operators": list(self.operators)}


def profile_operators(
    path: Path,
    *,
    threads: int = 1,
    runs: int = 20,
    warmup: int = 5,
    batch: int = 1,
    shape: Shape = None,
    provider: str = "cpu",
) -> list[OperatorCost]:
    """Usual cost of every node of the optimized graph, the slowest first.

    Raises:
        ModelFileError, MissingDependencyError: as :func:`edgekd.profiles.session.open_session`.
    """
    if runs < 1 or warmup < 0:
        raise ValueError(f"needs runs >= 1 and warmup >= 0, got {runs} and {warmup}")
    path = Path(path)
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        writes = provider in _WRITABLE and path.exists() and path.stat().st_size < _LARGEST
        session = open_session(
            path, threads=threads, provider=provider, profile_to=Path(folder) / "operators",
            optimized_to=optimized if writes else None,
        )  # fmt: skip
        feeds = random_inputs(session.get_inputs(), batch=batch, shape=shape, text=text_limits(session))
        for _ in range(warmup + runs):
            run(session, feeds)
        file = Path(session.end_profiling())
        try:
            events = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise EdgeKDError(
                fault(str(path), "ONNX Runtime's profile cannot be read", got=str(error))
            ) from error
        costs = operator_costs(events, warmup=warmup)
        return with_layers(costs, read_nodes(path), read_nodes(optimized) if optimized.exists() else ())


def operator_costs(events: Sequence[Mapping[str, Any]], *, warmup: int = 0) -> list[OperatorCost]:
    """The profiler's trace events to rows, without the layers.

    Args:
        events: in the Chrome trace format that ONNX Runtime writes; ``dur`` is in microseconds.
        warmup: inferences at the start that do not count.
    """
    durations: dict[tuple[str, str], list[float]] = defaultdict(list)
    providers: dict[tuple[str, str], str] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_SUFFIX):
            about = event.get("args", {})
            key = str(about.get("op_name", "")), name[: -len(_SUFFIX)]
            durations[key].append(float(event["dur"]))
            providers[key] = about.get("provider", "")
    counted = {key: values[warmup:] for key, values in durations.items() if len(values) > warmup}
    costs = {key: usual(values) for key, values in counted.items()}
    total = sum(costs.values())
    rows = [
        OperatorCost(
            op,
            node,
            cost,
            cost / total if total else 0.0,
            place,
            provider=short_names([providers[op, node]])[0],
        )
        for place, ((op, node), cost) in enumerate(costs.items())
    ]
    return sorted(rows, key=lambda row: (-row.mean_us, row.node))


def usual(values: Sequence[float]) -> float:
    """The mean of the middle half.

    One interrupted run moves a mean, not this. A median would be 0 or 1 for a node of half a microsecond, for the
    profiler counts whole ones.

    >>> usual([3.0, 4.0, 3.0, 900.0])
    3.5
    """
    ordered = sorted(values)
    cut = len(ordered) // 4
    middle = ordered[cut : len(ordered) - cut]
    return sum(middle) / len(middle)


def with_layers(
    costs: Sequence[OperatorCost], original: Sequence[OnnxNode], optimized: Sequence[OnnxNode]
) -> list[OperatorCost]:
    """The rows with the nodes and layers that they came from; without an optimized graph, by their names alone."""
    found = origins(original, optimized)
    layers = with_inserted(optimized, found)
    rows = []
    for cost in costs:
        named = layer_of(OnnxNode(cost.node, cost.op_type, (), ()))
        rows.append(
            replace(
                cost,
                nodes=tuple(node.name for node in found.get(cost.node, ())),
                layers=layers.get(cost.node, (named,) if named else ()),
            )
        )
    return rows


def layer_costs(costs: Sequence[OperatorCost]) -> list[LayerCost]:
    """Operators summed by the module that they count for, the slowest first."""
    groups: dict[str, list[OperatorCost]] = defaultdict(list)
    for cost in sorted(costs, key=lambda cost: cost.position):
        groups[cost.layer].append(cost)
    rows = [
        LayerCost(
            layer,
            sum(cost.mean_us for cost in group),
            sum(cost.share for cost in group),
            tuple(cost.op_type for cost in group),
        )
        for layer, group in groups.items()
    ]
    return sorted(rows, key=lambda row: (-row.mean_us, row.layer))
