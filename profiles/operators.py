"""Where the time goes: ONNX Runtime's own profiler, read into rows."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekd.errors import EdgeKDError, fault
from edgekd.profiles.inputs import Shape, random_inputs, text_limits
from edgekd.profiles.session import open_session, run

_SUFFIX = "_kernel_time"


@dataclass(frozen=True)
class OperatorCost:
    """One node of the optimized graph.

    Attributes:
        node: its name; a fused node has a name that the runtime made.
        mean_us: microseconds an inference, with the profiler on: read shares, not sums.
        share: of the time of all nodes, 0 to 1.
        position: in the order of execution.
    """

    op_type: str
    node: str
    mean_us: float
    share: float
    position: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def profile_operators(
    path: Path,
    *,
    threads: int = 1,
    runs: int = 20,
    warmup: int = 5,
    batch: int = 1,
    shape: Shape = None,
) -> list[OperatorCost]:
    """Mean cost of every node of the optimized graph, the slowest first.

    Raises:
        ModelFileError: as :func:`edgekd.profiles.session.open_session`.
    """
    if runs < 1 or warmup < 0:
        raise ValueError(f"needs runs >= 1 and warmup >= 0, got {runs} and {warmup}")
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(path, threads=threads, profile_to=Path(folder) / "operators")
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
    return operator_costs(events, warmup=warmup)


def operator_costs(events: Sequence[Mapping[str, Any]], *, warmup: int = 0) -> list[OperatorCost]:
    """The profiler's trace events to rows.

    Args:
        events: in the Chrome trace format that ONNX Runtime writes; ``dur`` is in microseconds.
        warmup: inferences at the start that do not count.
    """
    durations: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_SUFFIX):
            operator = str(event.get("args", {}).get("op_name", ""))
            durations[operator, name.removesuffix(_SUFFIX)].append(float(event["dur"]))
    means = {key: values[warmup:] for key, values in durations.items() if len(values) > warmup}
    costs = {key: sum(values) / len(values) for key, values in means.items()}
    total = sum(costs.values())
    rows = [
        OperatorCost(op, node, cost, cost / total if total else 0.0, position)
        for position, ((op, node), cost) in enumerate(costs.items())
    ]
    return sorted(rows, key=lambda row: (-row.mean_us, row.node))
