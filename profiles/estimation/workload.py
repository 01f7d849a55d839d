"""An ONNX file to the operators that an edge runtime runs: parsed, shapes inferred, fused by rule, counted."""

from __future__ import annotations

from pathlib import Path

from edgekd.profiles.estimation.classify import classify
from edgekd.profiles.estimation.fusion import (
    drop_noops,
    fold_batch_norms,
    fold_pads,
    fold_scales,
    fuse_activations,
)
from edgekd.profiles.estimation.graph import Graph
from edgekd.profiles.estimation.integers import absorb_pairs, name_plainly
from edgekd.profiles.estimation.loading import load_graph
from edgekd.profiles.estimation.operators import Operator, Workload
from edgekd.profiles.estimation.patterns import recognise
from edgekd.profiles.estimation.shapes import DETECTIONS
from edgekd.profiles.inputs import Shape
from edgekd.profiles.onnx_file import read_summary


def read_workload(model: Path, *, batch: int = 1, shape: Shape = None) -> Workload:
    """The fused operators of an ONNX file.

    Only the file itself is read; of weights beside it (external data) a few rows, to see whether they are 2:4.

    Args:
        batch: samples per inference, where the file leaves it open.
        shape: of the inputs, as in :func:`edgekd.profiles.inputs.random_inputs`.

    Raises:
        ModelFileError: missing, truncated, external data missing; open dimensions without ``shape``, or another
            shape or batch than the file's; an unknown operator; one line.
        MissingDependencyError: the ``onnx`` package is not installed.
        ValueError: ``batch`` below 1.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    model = Path(model)
    graph = load_graph(model, batch=batch, shape=shape)
    operators = fused_operators(graph, batch=batch)
    notes = []
    if any(operator.dynamic for operator in operators):
        notes.append(f"sizes that depend on the data, such as detections, are taken as {DETECTIONS}")
    return Workload(
        operators=operators,
        precision=read_summary(model).precision,
        inputs=graph.inputs,
        opset=graph.opset,
        notes=tuple(notes),
    )


def fused_operators(graph: Graph, *, batch: int) -> tuple[Operator, ...]:
    """Fuse a graph, in place, and count what is left."""
    drop_noops(graph)
    name_plainly(graph)
    fold_batch_norms(graph)
    fold_pads(graph)
    recognise(graph)
    fold_scales(graph)
    fuse_activations(graph)
    absorb_pairs(graph)
    fuse_activations(graph)  # a ReLU between two pairs
    index = graph.index()
    return tuple(classify(graph, index, node, batch=batch) for node in graph.nodes)
