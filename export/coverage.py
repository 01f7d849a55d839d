"""The kernel-coverage gate: which convolutions and linear layers really run in integers.

Q/DQ in a file is a wish. Whether it is granted is decided by the runtime's fusions, so the file is loaded,
the optimized graph is written out and read. ONNX Runtime fuses by one of two rules: on x86 it wants uint8
activations, on Arm it takes int8 too (``session.qdqisint8allowed``); both can be asked for on any machine.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from edgekd.errors import CoverageError, fault
from edgekd.export.compact import layer_of
from edgekd.export.graph import Graph
from edgekd.export.macs import count_macs
from edgekd.export.weights import WEIGHTED, load_onnx, stored_weights
from edgekd.profiles.session import open_session

INTEGER_OPS = frozenset(
    {"QLinearConv", "ConvInteger", "QGemm", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat"}
    | {"DynamicQuantizeMatMul", "QAttention"}
)
# Weights of 4 or 8 bits: an integer kernel where it is asked to round its inputs too.
_BLOCKS = "MatMulNBits"
FLOAT_OPS = frozenset({"Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"})
_SUFFIX = re.compile(r"(_token_\d+|_nchwc|_transformed|/MatMulScaleFusion/|/MatmulTransposeFusion/)$")


@dataclass(frozen=True)
class CoverageReport:
    """What the optimized graph holds.

    Attributes:
        rule: the fusion rule the file was read under.
        integer_ops, float_ops: convolutions and linear layers, by the kernel that runs them.
        coverage: integer share of them, 0 to 1; 1 when there are none.
        mac_coverage: the same weighted by multiply-accumulates; None where shapes are unknown.
        leftover_qdq: QuantizeLinear and DequantizeLinear inside the network (at its input and output they
            must stand).
        converted_for: operator types that those nodes stand before or behind, the most frequent first.
        batch_norms: BatchNormalization nodes left over.
        first_break: ``"node: reason"`` of the first convolution or linear layer in float, in graph order.
        float_nodes: ``"node: reason"`` of all of them.
        float_products: products of two activations (attention) that run in float. They are not counted above:
            an integer kernel would have to pack its second operand at each run, and measures no faster.
        float_product_macs: their multiply-accumulates per sample; None where shapes are unknown.
    """

    rule: str
    integer_ops: int
    float_ops: int
    coverage: float
    mac_coverage: float | None
    leftover_qdq: int
    batch_norms: int
    first_break: str | None
    float_nodes: list[str] = field(default_factory=list)
    float_products: int = 0
    float_product_macs: float | None = None
    converted_for: tuple[str, ...] = ()


def check_coverage(path: Path, rule: Literal["x86", "arm"] = "x86") -> CoverageReport:
    """Load ``path`` in ONNX Runtime, write the optimized graph to a temporary file and count its kernels.

    Raises:
        ModelFileError: no ONNX file, or the runtime cannot load it; one line.
    """
    original = load_onnx(path)
    with tempfile.TemporaryDirectory(prefix="edgekd-coverage-") as folder:
        optimized_file = Path(folder) / "optimized.onnx"
        open_session(path, kernel_rule=rule, optimized_to=optimized_file)
        # Weights beside the file stay there, and are not asked for: kernels are names of operators.
        optimized = onnx.load(str(optimized_file), load_external_data=False)
    source = Graph(original)
    by_name = {node.output[0]: node for node in original.graph.node}
    by_name |= {node.name: node for node in original.graph.node}
    weighted = {weight.node for weight in stored_weights(original)}
    macs, products = count_macs(original)
    spent: dict[str, float] = {"integer": 0.0, "float": 0.0}
    integers, known = 0, True
    floats: dict[str, str] = {}
    attention: list[float | None] = []
    for node in optimized.graph.node:
        if node.op_type not in INTEGER_OPS | FLOAT_OPS | {_BLOCKS}:
            continue
        name = _original_name(node.name or node.output[0])
        origin = _weighted(source, by_name.get(name))
        if origin is not None and origin.name not in weighted:
            if node.op_type in FLOAT_OPS:
                attention.append(products.get(origin.name))
            continue  # the product of two activations
        kind = "integer" if node.op_type in INTEGER_OPS or _rounds_inputs(node) else "float"
        cost = macs.get(origin.name) if origin is not None else None
        known = known and cost is not None
        spent[kind] += cost or 0.0
        if kind == "integer":
            integers += 1
        else:
            label = origin.name if origin is not None else name
            floats[label] = _reason(source, origin, rule) if origin is not None else "fused by the runtime"
    order = {node.name: k for k, node in enumerate(original.graph.node)}
    float_nodes = [f"{name}: {floats[name]}" for name in sorted(floats, key=lambda n: order.get(n, -1))]
    total, total_macs = integers + len(floats), sum(spent.values())
    left = _leftover(optimized)
    return CoverageReport(
        rule=rule,
        integer_ops=integers,
        float_ops=len(floats),
        coverage=integers / total if total else 1.0,
        mac_coverage=spent["integer"] / total_macs if known and total_macs else None,
        leftover_qdq=len(left),
        batch_norms=sum(node.op_type == "BatchNormalization" for node in optimized.graph.node),
        first_break=float_nodes[0] if float_nodes else None,
        float_nodes=float_nodes,
        float_products=len(attention),
        float_product_macs=sum(cost or 0.0 for cost in attention) if None not in attention else None,
        converted_for=_beside(left, optimized),
    )


def require_coverage(
    report: CoverageReport, minimum: float, where: str, *, chosen: Collection[str] = ()
) -> None:
    """Refuse a file of which less than ``minimum`` (0 to 1) runs in integer kernels.

    Args:
        chosen: layers that are in float on purpose, for accuracy's sake or because a recipe leaves them out. They
            are no fault of the file and are not counted.

    Raises:
        CoverageError: one line that names the first node in float and why.
    """
    broken = [node for node in report.float_nodes if layer_of(node.partition(": ")[0]) not in chosen]
    total = report.integer_ops + len(broken)
    coverage = report.integer_ops / total if total else 1.0
    if coverage < minimum:
        raise CoverageError(
            fault(
                where,
                f"{len(broken)} of {total} convolutions and linear layers run in float under the "
                f"{report.rule} rule; the first is {broken[0]}",
                got=round(coverage, 4),
                allowed=f"a coverage of at least {minimum}",
                fix="export.min_coverage in the recipe allows less",
            )
        )


def _rounds_inputs(node: onnx.NodeProto) -> bool:
    return node.op_type == _BLOCKS and any(a.name == "accuracy_level" and a.i == 4 for a in node.attribute)


def _original_name(name: str) -> str:
    """ONNX Runtime adds suffixes when it replaces a node."""
    while (shorter := _SUFFIX.sub("", name)) != name:
        name = shorter
    return name


def _weighted(graph: Graph, node: onnx.NodeProto | None) -> onnx.NodeProto | None:
    """``node``, or the layer before it: a fused kernel may carry the name of its activation."""
    for _ in range(3):
        if node is None or node.op_type in WEIGHTED:
            return node
        node = graph.producer.get(node.input[0]) if node.input else None
    return None


def _leftover(optimized: onnx.ModelProto) -> list[onnx.NodeProto]:
    inputs = {value.name for value in optimized.graph.input}
    outputs = {value.name for value in optimized.graph.output}
    return [
        node
        for node in optimized.graph.node
        if (node.op_type == "QuantizeLinear" and node.input[0] not in inputs)
        or (node.op_type == "DequantizeLinear" and node.output[0] not in outputs)
    ]


def _beside(conversions: list[onnx.NodeProto], optimized: onnx.ModelProto) -> tuple[str, ...]:
    graph = Graph(optimized)
    found = Counter[str]()
    for node in conversions:
        if node.op_type == "DequantizeLinear":
            found.update(reader.op_type for reader in graph.readers.get(node.output[0], []))
        elif (producer := graph.producer.get(node.input[0])) is not None:
            found[producer.op_type] += 1
    return tuple(kind for kind, _ in found.most_common())


def _reason(graph: Graph, node: onnx.NodeProto, rule: str) -> str:
    """Why the runtime could not run ``node`` in integers, as far as the file tells."""
    if node.op_type == _BLOCKS:
        return "its weight is stored in integers, its products are asked for in float"
    data, weight = (graph.producer.get(name) for name in node.input[:2])
    if data is None or data.op_type != "DequantizeLinear":
        source = "the model's input" if data is None else f"{data.op_type} {data.name}"
        return f"its input comes from {source} without Q/DQ"
    if weight is None or weight.op_type != "DequantizeLinear":
        return "its weight is stored in float"
    output = node.output[0]
    readers = graph.readers.get(output, [])
    if not any(reader.op_type == "QuantizeLinear" for reader in readers) and node.op_type == "Conv":
        if output in graph.outputs:
            return "its output is the model's output, without Q/DQ"
        return f"its output goes to {readers[0].op_type} {readers[0].name} before it is quantized"
    if len(readers) > 1:
        return f"its output is read by {len(readers)} nodes, not by one QuantizeLinear"
    zero = graph.constant(data.input[2]) if len(data.input) > 2 else None
    if rule == "x86" and zero is not None and zero.dtype == np.int8:
        return "its activations are int8, which this rule does not fuse; uint8 would"
    if len(node.input) > 2 and node.input[2] in graph.initializers:
        return "its bias is float, not int32"
    return "the runtime has no integer kernel for it"
