"""How fast an ONNX file is: measured, and by which statistics. Never imports torch.

Names are loaded on first use, so that ``import edgekd.profiles`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekd.profiles.cautions import Caution, CautionKind
    from edgekd.profiles.emulation.api import emulate
    from edgekd.profiles.emulation.outputs import Agreement, emulate_outputs
    from edgekd.profiles.estimation.api import estimate
    from edgekd.profiles.estimation.by_family import workload_lines
    from edgekd.profiles.estimation.operators import Workload
    from edgekd.profiles.estimation.workload import read_workload
    from edgekd.profiles.measurement import Measurement, measure
    from edgekd.profiles.onnx_file import OnnxSummary, read_summary
    from edgekd.profiles.operators import LayerCost, OperatorCost, layer_costs, profile_operators
    from edgekd.profiles.report import LatencyReport
    from edgekd.profiles.runtimes import in_each_runtime
    from edgekd.profiles.session import open_session, run_batches
    from edgekd.profiles.ssh.destination import SshOptions
    from edgekd.profiles.ssh.measured import measure_on_host
    from edgekd.profiles.statistics import Ratio
    from edgekd.profiles.throughput import Throughput, measure_throughput

__all__ = [
    "Agreement",
    "Caution",
    "CautionKind",
    "LatencyReport",
    "LayerCost",
    "Measurement",
    "OnnxSummary",
    "OperatorCost",
    "Ratio",
    "SshOptions",
    "Throughput",
    "Workload",
    "emulate",
    "emulate_outputs",
    "estimate",
    "in_each_runtime",
    "layer_costs",
    "measure",
    "measure_on_host",
    "measure_throughput",
    "open_session",
    "profile_operators",
    "read_summary",
    "read_workload",
    "run_batches",
    "workload_lines",
]

_HOMES = {
    "Agreement": "emulation.outputs",
    "Caution": "cautions",
    "CautionKind": "cautions",
    "LatencyReport": "report",
    "LayerCost": "operators",
    "Measurement": "measurement",
    "OnnxSummary": "onnx_file",
    "OperatorCost": "operators",
    "Ratio": "statistics",
    "Throughput": "throughput",
    "SshOptions": "ssh.destination",
    "Workload": "estimation.operators",
    "emulate": "emulation.api",
    "emulate_outputs": "emulation.outputs",
    "estimate": "estimation.api",
    "in_each_runtime": "runtimes",
    "layer_costs": "operators",
    "measure": "measurement",
    "measure_on_host": "ssh.measured",
    "measure_throughput": "throughput",
    "open_session": "session",
    "profile_operators": "operators",
    "read_summary": "onnx_file",
    "read_workload": "estimation.workload",
    "run_batches": "session",
    "workload_lines": "estimation.by_family",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
