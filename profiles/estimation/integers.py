"""What runs in integers: an operator whose inputs are dequantized and whose output is quantized again.

Such a pair costs nothing; one that stands where the runtime has no integer kernel is an operator of its own.
"""

from __future__ import annotations

from edgekd.profiles.estimation.graph import Graph, Node

# Both ONNX Runtime and TensorRT have integer kernels, or move the integers without looking at them.
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_CAPABLE = _PRODUCTS | frozenset(
    {"Add", "Mul", "Sum", "AveragePool", "GlobalAveragePool", "MaxPool", "ReduceMean", "Concat", "Resize"}
    | {"Upsample", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Gather"}
    | {"Pad", "Relu", "Clip", "LeakyRelu", "Sigmoid", "Softmax", "DepthToSpace", "SpaceToDepth", "Expand"}
)
# Operators that state their integers themselves: plain type, activations, weights. ONNX and com.microsoft.
_STATED: dict[str, tuple[str, tuple[int, ...]]] = {
    "QLinearConv": ("Conv", (0, 3, 8)), "ConvInteger": ("Conv", (0, 1)),
    "QLinearMatMul": ("MatMul", (0, 3)), "MatMulInteger": ("MatMul", (0, 1)), "QGemm": ("Gemm", (0, 3, 6)),
    "DynamicQuantizeMatMul": ("MatMul", (0, 1, 4)), "MatMulIntegerToFloat": ("MatMul", (0, 1, 6)),
    "QLinearAdd": ("Add", (0, 3)), "QLinearMul": ("Mul", (0, 3)), "QLinearSigmoid": ("Sigmoid", (0,)),
    "QLinearLeakyRelu": ("LeakyRelu", (0,)), "QLinearSoftmax": ("Softmax", (0,)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)), "QLinearConcat": ("Concat", ()),
}  # fmt: skip


def name_plainly(graph: Graph) -> None:
    """``QLinearConv`` becomes a ``Conv`` in integers, and so on."""
    for node in graph.nodes:
        if node.op not in _STATED:
            continue
        plain, places = _STATED[node.op]
        places = places or tuple(range(2, len(node.inputs), 3))
        node.op, node.integer = plain, True
        node.inputs = [node.inputs[place] for place in places if place < len(node.inputs)]


def absorb_pairs(graph: Graph) -> None:
    """Join DequantizeLinear, operator and QuantizeLinear; drop pairs that only change a scale."""
    index = graph.index()
    dequantized = {
        node.outputs[0]: node.inputs[0]
        for node in graph.nodes
        if node.op == "DequantizeLinear" and node.inputs[0] in graph.shapes
    }
    gone: list[Node] = []
    for node in list(graph.nodes):
        if node.op == "QuantizeLinear" and node.inputs[0] in dequantized:
            graph.rename(node.outputs[0], dequantized[node.inputs[0]])
            gone.append(node)
            continue
        if node.op not in _CAPABLE or node.integer:
            continue
        floats = graph.activations(node)
        if not floats or not all(name in dequantized for name in floats):
            continue
        if node.op in _PRODUCTS and not _weights_are_integers(graph, node):
            continue
        readers = [reader for output in node.outputs for reader in index.readers.get(output, [])]
        visible = any(output in graph.outputs for output in node.outputs)
        quantized = bool(readers) and not visible and all(reader.op == "QuantizeLinear" for reader in readers)
        if not quantized and node.op not in ("MatMul", "Gemm"):
            continue  # ONNX Runtime keeps all else in floating point
        node.integer = True
        node.inputs = [dequantized.get(name, name) for name in node.inputs]
        if quantized:
            gone += readers
            for position, output in enumerate(node.outputs):
                aliases = [reader.outputs[0] for reader in index.readers.get(output, [])]
                for alias in aliases[1:]:
                    graph.rename(alias, aliases[0])
                if aliases:
                    node.outputs[position] = aliases[0]
        index = graph.index()
    removed = {id(node) for node in gone}
    kept = [node for node in graph.nodes if id(node) not in removed]
    read = {name for node in kept for name in node.inputs} | graph.outputs
    graph.nodes = [node for node in kept if node.op != "DequantizeLinear" or node.outputs[0] in read]


def _weights_are_integers(graph: Graph, node: Node) -> bool:
    weight = graph.weights.get(node.inputs[1]) if len(node.inputs) > 1 else None
    return weight is None or weight.element_bytes <= 1
