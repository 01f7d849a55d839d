"""What TensorRT is told to run in int8.

TensorRT chooses its kernels on the board, where its engine is built; a file can only be read for what it
asks. Under explicit quantization a convolution or linear layer runs in int8 where its data and its weights
both come out of a DequantizeLinear (TensorRT developer guide, "Working with quantized types", explicit
quantization). ONNX Runtime's rules do not apply: they want a quantized bias, which TensorRT refuses.
"""

from __future__ import annotations

from pathlib import Path

from edgekd.export.coverage import CoverageReport
from edgekd.export.graph import Graph
from edgekd.export.weights import load_onnx, stored_weights

RULE = "explicit"


def check_explicit(path: Path) -> CoverageReport:
    """Count the layers with weights that are asked to run in int8, and name those that are not.

    Raises:
        ModelFileError: no ONNX file; one line.
    """
    proto = load_onnx(path)
    graph = Graph(proto)
    layers = {weight.node for weight in stored_weights(proto)}
    float_nodes = []
    for node in proto.graph.node:
        if node.name not in layers:
            continue
        sources = [graph.producer.get(name) for name in node.input[:2]]
        missing = [
            what
            for what, source in zip(("its input", "its weight"), sources, strict=True)
            if source is None or source.op_type != "DequantizeLinear"
        ]
        if missing:
            float_nodes.append(f"{node.name}: {' and '.join(missing)} without Q/DQ")
    integers = len(layers) - len(float_nodes)
    return CoverageReport(
        rule=RULE,
        integer_ops=integers,
        float_ops=len(float_nodes),
        coverage=integers / len(layers) if layers else 1.0,
        mac_coverage=None,
        leftover_qdq=0,
        batch_norms=sum(node.op_type == "BatchNormalization" for node in proto.graph.node),
        first_break=float_nodes[0] if float_nodes else None,
        float_nodes=float_nodes,
    )
