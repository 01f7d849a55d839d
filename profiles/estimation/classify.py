"""One node of the fused graph to one :class:`~edgekd.profiles.estimation.operators.Operator`: counts and family."""

from __future__ import annotations

import math
from typing import Any

from edgekd.profiles.estimation.families import convolution_family, family_of, product_family
from edgekd.profiles.estimation.fusion import WEIGHTED
from edgekd.profiles.estimation.graph import Graph, Index, Node, Weight
from edgekd.profiles.estimation.operators import Operator
from edgekd.profiles.estimation.sparsity import is_2to4
from edgekd.profiles.estimation.stored import element_bytes

_FUSABLE = ("elementwise", "activation-expensive")
_ATTENTION = ("Attention", "MultiHeadAttention")


def classify(graph: Graph, index: Index, node: Node, *, batch: int) -> Operator:
    """Shapes of convolutions are channels first."""
    base = _counts(graph, node)
    if node.op in ("Conv", "ConvTranspose", "FusedConv", "NhwcFusedConv") and node.inputs[1] in graph.weights:
        return Operator(**base, **_convolution(graph, node))
    if node.op in ("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "MatMulNBits", "Einsum"):
        return Operator(**base, **_product(graph, node, batch))
    if node.op in _ATTENTION:
        return Operator(**base, **_attention(graph, node))
    shape = graph.shapes[next(name for name in node.outputs if name in graph.shapes)]
    sizes: dict[str, Any] = {"family": family_of(node.op)}
    if len(shape) >= 2:
        height, width = (*shape[2:], 1, 1)[:2]
        read = graph.activations(node)
        before = graph.shapes[read[0]] if read else shape
        channels_in = before[1] if len(before) > 1 else 0
        sizes |= {"channels_in": channels_in, "channels_out": shape[1], "height": height, "width": width}
    if sizes["family"] == "pool":
        sizes |= {"kernel": _pair(node.attributes["kernel_shape"]), "stride": _stride(node)}
    if sizes["family"] == "recurrent":
        sizes |= _recurrent(graph, node)
    if node.op == "Gather" and node.inputs[0] in graph.weights:
        base["weight_elements"] = base["output_elements"]  # rows that are read
        base["weight_element_bytes"] = graph.weights[node.inputs[0]].element_bytes
        sizes["family"] = "embedding"
    if sizes["family"] == "reshape":
        base["input_elements"] = base["output_elements"] = base["weight_elements"] = 0
    if sizes["family"] in _FUSABLE:
        sizes["fusable"] = _is_fusable(graph, index, node)
    return Operator(**base, **sizes)


def _counts(graph: Graph, node: Node) -> dict[str, Any]:
    outputs = [name for name in node.outputs if name in graph.shapes]
    weights = [graph.weights[name] for name in dict.fromkeys(node.inputs) if name in graph.weights]
    large = max(weights, key=_size, default=None)
    return {
        "node": node.name,
        "op": node.op,
        "input_elements": sum(graph.elements(name) for name in graph.activations(node)),
        "output_elements": sum(graph.elements(name) for name in outputs),
        "weight_elements": sum(_size(weight) for weight in weights),
        "element_bytes": 1 if node.integer else _width(graph, node),
        "weight_element_bytes": large.element_bytes if large is not None else 4.0,
        "activation": node.activation,
        "integer": node.integer,
        "dynamic": any(name in graph.dynamic for name in (*node.inputs, *node.outputs)),
    }


def _convolution(graph: Graph, node: Node) -> dict[str, Any]:
    weight = graph.weights[node.inputs[1]]
    before, after = graph.shapes[node.inputs[0]], graph.shapes[node.outputs[0]]
    if node.op == "NhwcFusedConv":
        before, after = (before[0], before[-1], *before[1:-1]), (after[0], after[-1], *after[1:-1])
    groups = int(node.attributes.get("group", 1))
    kernel, window = _pair(weight.shape[2:]), math.prod(weight.shape[2:])
    stride, dilation = _stride(node), max(node.attributes.get("dilations") or [1])
    height, width = (1, after[2]) if len(after) == 3 else (math.prod(after[2:-1]), after[-1])
    transposed = node.op == "ConvTranspose"
    channels = before[1]
    # A transposed convolution puts its window at every position of the input.
    places = math.prod(before) if transposed else math.prod(after)
    terms = (weight.shape[1] if transposed else channels // groups) * window
    family = convolution_family(
        kernel=kernel, stride=stride, dilation=dilation, groups=groups,
        channels_in=channels, positions=math.prod(after[2:]),
    )  # fmt: skip
    return {
        "family": "deconv" if transposed else family,
        "macs": places * terms,
        "kernel": kernel,
        "stride": stride,
        "dilation": dilation,
        "groups": groups,
        "channels_in": channels,
        "channels_out": after[1],
        "height": height,
        "width": width,
        "sparse_2to4": groups == 1 and not transposed and is_2to4(weight, reduction=1),
    }


def _product(graph: Graph, node: Node, batch: int) -> dict[str, Any]:
    if node.op == "Einsum":
        return _einsum(graph, node, batch)
    left, after = _shape(graph, node.inputs[0]), graph.shapes[node.outputs[0]]
    terms = left[-2] if node.attributes.get("transA") and len(left) > 1 else left[-1]
    columns = after[-1] if after else 1
    rows = math.prod(after) // max(1, columns)
    sizes = {"macs": rows * columns * terms, "channels_in": terms, "channels_out": columns}
    weight = graph.weights.get(node.inputs[1])
    if weight is None and node.inputs[0] in graph.shapes:
        matrices = math.prod(after[:-2])
        return sizes | {"family": "attention", "groups": matrices, "height": rows // max(1, matrices)}
    sparse = False
    if weight is not None and len(weight.shape) == 2 and node.op != "MatMulNBits":
        sparse = is_2to4(weight, reduction=1 if node.attributes.get("transB") else 0)
    family = product_family(rows=rows, batch=batch)
    return sizes | {"family": family, "height": rows, "sparse_2to4": sparse}


def _einsum(graph: Graph, node: Node, batch: int) -> dict[str, Any]:
    """Every combination of labels is one multiply-accumulate."""
    equation = node.attributes["equation"].decode().replace(" ", "")
    terms = equation.split("->")[0].split(",")
    after = graph.shapes[node.outputs[0]]
    sizes: dict[str, int] = {}
    if "." not in equation:
        for term, name in zip(terms, node.inputs, strict=False):
            sizes.update(zip(term, _shape(graph, name), strict=False))
    macs = math.prod(sizes.values()) if len(terms) > 1 else 0
    reduced = macs // max(1, math.prod(after))
    columns = after[-1] if after else 1
    rows = math.prod(after) // max(1, columns)
    weighted = any(name in graph.weights for name in node.inputs)
    family = product_family(rows=rows, batch=batch) if weighted else "attention"
    return {
        "family": family if len(terms) > 1 else "transpose",
        "macs": macs,
        "channels_in": reduced,
        "channels_out": columns,
        "height": rows,
    }


def _attention(graph: Graph, node: Node) -> dict[str, Any]:
    """Both products of fused attention, and in ONNX Runtime's ``Attention`` the projection before them."""
    query, after = graph.shapes[node.inputs[0]], graph.shapes[node.outputs[0]]
    key = _shape(graph, node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else query
    projected = len(node.inputs) > 1 and node.inputs[1] in graph.weights
    tokens = query[-2] if projected else key[-2]
    macs = 2 * math.prod(after) * tokens
    if projected:
        macs += math.prod(query) * key[-1]
    heads = int(node.attributes.get("num_heads", node.attributes.get("q_num_heads", 1)))
    return {
        "family": "attention",
        "macs": macs,
        "groups": heads,
        "channels_in": query[-1],
        "channels_out": after[-1],
        "height": query[-2],
    }


def _recurrent(graph: Graph, node: Node) -> dict[str, Any]:
    steps, batch = graph.shapes[node.inputs[0]][:2]
    products = sum(math.prod(_shape(graph, name)) for name in node.inputs[1:3])
    return {"macs": steps * batch * products, "height": steps}


def _is_fusable(graph: Graph, index: Index, node: Node) -> bool:
    """One of its inputs is written by a convolution or product, for it alone, in the output's shape."""
    return any(
        (before := index.producer.get(name)) is not None
        and before.op in WEIGHTED
        and before.activation is None
        and index.only_reader(name) is node
        and graph.shapes[name] == graph.shapes[node.outputs[0]]
        for name in graph.activations(node)
    )


def _width(graph: Graph, node: Node) -> int:
    """Bytes of an element: of what is written, of what is read where integers become floats or back."""
    names = [*node.outputs, *graph.activations(node)]
    return max(math.ceil(element_bytes(graph.types[name])) for name in names[:2] if name in graph.types)


def _shape(graph: Graph, name: str) -> tuple[int, ...]:
    return graph.shapes[name] if name in graph.shapes else graph.weights[name].shape


def _size(weight: Weight) -> int:
    return math.prod(weight.shape)


def _pair(sizes: Any) -> tuple[int, int]:
    """Of one dimension ``(1, k)``; of three the first two together."""
    sizes = tuple(int(size) for size in sizes)
    return (1, sizes[0]) if len(sizes) == 1 else (math.prod(sizes[:-1]), sizes[-1])


def _stride(node: Node) -> int:
    return max(int(step) for step in node.attributes.get("strides") or [1])
