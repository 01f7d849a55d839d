"""Which convolutions and linear layers run in integers, whoever wrote the file.

``edgekd.export.coverage`` names the layer of the *written* graph and knows how edgekd stores weights. Peers store them
in other ways (float weights that are quantized in the graph, clipped, transposed), so here only ONNX Runtime's own
optimized graph is read: a kernel counts when its weight operand is computed from constants alone.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx

from edgekd.profiles import open_session

_INTEGER = {
    "QLinearConv": 3, "ConvInteger": 1, "QGemm": 3, "QLinearMatMul": 3, "MatMulInteger": 1,
    "MatMulIntegerToFloat": 1, "DynamicQuantizeMatMul": 1, "QAttention": 1, "MatMulNBits": 1,
}  # fmt: skip
_FLOAT = {
    "Conv": 1, "FusedConv": 1, "NhwcFusedConv": 1, "Gemm": 1, "FusedGemm": 1, "MatMul": 1, "FusedMatMul": 1,
    "Attention": 1,
}  # fmt: skip


def count_kernels(path: Path) -> tuple[int, int]:
    """Integer and float kernels with a weight, in the graph that ONNX Runtime makes of ``path`` (x86 rule).

    Raises:
        ModelFileError: ONNX Runtime refuses the file.
    """
    with tempfile.TemporaryDirectory(prefix="edgekd-kernels-") as folder:
        optimized = Path(folder) / "optimized.onnx"
        open_session(path, kernel_rule="x86", optimized_to=optimized)
        graph = onnx.load(str(optimized), load_external_data=False).graph
    constant = {tensor.name for tensor in graph.initializer}
    counted = {"integer": 0, "float": 0}
    for node in graph.node:  # sorted: what a node reads stands before it
        if all(name in constant for name in node.input if name):
            constant.update(node.output)
        for kind, operands in (("integer", _INTEGER), ("float", _FLOAT)):
            position = operands.get(node.op_type)
            if position is not None and len(node.input) > position and node.input[position] in constant:
                counted[kind] += 1
    return counted["integer"], counted["float"]
