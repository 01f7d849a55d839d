"""Functions that exporters spell out in small nodes, put together again: every edge runtime does.

GELU, SiLU, HardSwish, Mish, layer norm and RMS norm. Each is found from one node that only it has.
"""

from __future__ import annotations

import math

from edgekd.profiles.estimation.graph import Graph, Index, Node


def recognise(graph: Graph) -> None:
    """Rewrite the graph in place."""
    for node in list(graph.nodes):
        finder = _ANCHORS.get(node.op)
        if finder is not None and any(node is kept for kept in graph.nodes):
            finder(graph, graph.index(), node)


def _gelu(graph: Graph, index: Index, erf: Node) -> None:
    """``0.5 x (1 + erf(x / sqrt 2))``, its factors in any order."""
    scaled = index.producer.get(erf.inputs[0])
    if scaled is None or scaled.op not in ("Div", "Mul"):
        return
    source = _other(graph, scaled)
    chain = [scaled, erf]
    halves = [node for node in index.readers.get(source, []) if node.op == "Mul" and node is not scaled]
    current, multiplied = erf.outputs[0], False
    while (reader := index.only_reader(current)) is not None and reader.op in ("Add", "Mul", "Div"):
        others = [name for name in reader.inputs if name != current]
        half = next((node for node in halves if node.outputs[0] in others), None)
        constant = bool(others) and others[0] in graph.weights
        if not constant and source not in others and half is None:
            break
        if half is not None:
            chain.append(half)
        multiplied = multiplied or not constant
        chain.append(reader)
        current = reader.outputs[0]
        if multiplied and len([node for node in chain if node.op in ("Mul", "Div")]) >= 4:
            break
    if multiplied:
        _collapse(graph, chain, "Gelu", source, current)


def _tanh_gelu(graph: Graph, index: Index, tanh: Node) -> None:
    """``0.5 x (1 + tanh(a x + b x^3))``"""
    shifted = index.only_reader(tanh.outputs[0])
    product = index.only_reader(shifted.outputs[0]) if shifted is not None and shifted.op == "Add" else None
    if shifted is None or product is None or product.op != "Mul":
        return
    other = next((name for name in product.inputs if name != shifted.outputs[0]), "")
    chain, current = [tanh, shifted, product], product.outputs[0]
    half = index.producer.get(other)
    if half is not None and half.op == "Mul" and _is_close(_constant(graph, half), 0.5):
        chain.append(half)
        other = _other(graph, half)
    else:
        last = index.only_reader(current)
        if last is None or last.op != "Mul" or not _is_close(_constant(graph, last), 0.5):
            return
        chain.append(last)
        current = last.outputs[0]
    inner = _between(graph, index, other, tanh.inputs[0])
    if inner:
        _collapse(graph, [*inner, *chain], "Gelu", other, current)


def _between(graph: Graph, index: Index, source: str, value: str) -> list[Node]:
    """Sums, products and powers of ``source`` alone that give ``value``; empty if others take part."""
    found: list[Node] = []
    waiting = [value]
    while waiting:
        name = waiting.pop()
        if name == source or name in graph.weights:
            continue
        node = index.producer.get(name)
        if node is None or node.op not in ("Add", "Mul", "Pow") or len(found) > 8:
            return []
        if all(node is not known for known in found):
            found.append(node)
            waiting += node.inputs
    return found


def _gated(graph: Graph, index: Index, gate: Node) -> None:
    """``x * gate(x)``: SiLU; HardSwish from a HardSigmoid."""
    reader = index.only_reader(gate.outputs[0])
    source = gate.inputs[0]
    if reader is not None and reader.op == "Mul" and source in reader.inputs:
        name = "Silu" if gate.op == "Sigmoid" else "HardSwish"
        _collapse(graph, [gate, reader], name, source, reader.outputs[0])


def _hard_swish(graph: Graph, index: Index, clip: Node) -> None:
    """``x * clip(x + 3, 0, 6) / 6``, the division before or after the product; without the product HardSigmoid."""
    shifted = index.producer.get(clip.inputs[0])
    if shifted is None or shifted.op != "Add" or not _is_close(_constant(graph, shifted), 3.0):
        return
    source = _other(graph, shifted)
    chain, current, name = [shifted, clip], clip.outputs[0], ""
    divided = False
    while (reader := index.only_reader(current)) is not None and reader.op in ("Div", "Mul"):
        sixth = _constant(graph, reader)
        if sixth is not None and not divided and (_is_close(sixth, 6.0) or _is_close(sixth, 1 / 6)):
            divided = True
        elif reader.op == "Mul" and source in reader.inputs and not name:
            name = "HardSwish"
        else:
            break
        chain.append(reader)
        current = reader.outputs[0]
    if divided:
        _collapse(graph, chain, name or "HardSigmoid", source, current)


def _mish(graph: Graph, index: Index, softplus: Node) -> None:
    """``x * tanh(softplus(x))``"""
    tanh = index.only_reader(softplus.outputs[0])
    product = index.only_reader(tanh.outputs[0]) if tanh is not None and tanh.op == "Tanh" else None
    if (
        tanh is not None
        and product is not None
        and product.op == "Mul"
        and softplus.inputs[0] in product.inputs
    ):
        _collapse(graph, [softplus, tanh, product], "Mish", softplus.inputs[0], product.outputs[0])


def _norm(graph: Graph, index: Index, root: Node) -> None:
    """From the square root upwards to the mean, and down to scale and shift."""
    upward, node = [root], index.producer.get(root.inputs[0])
    for wanted in ("Add", "ReduceMean", ("Pow", "Mul")):
        if node is None or node.op not in wanted:
            return
        upward.append(node)
        node = index.producer.get(_other(graph, node) if node.op == "Add" else node.inputs[0])
    squared = upward[-1]
    centred = node if node is not None and node.op == "Sub" else None
    mean = index.producer.get(centred.inputs[1]) if centred is not None else None
    if centred is not None and mean is not None and mean.op == "ReduceMean":
        source, name, chain = centred.inputs[0], "LayerNormalization", [*upward, centred, mean]
        body = centred.outputs[0]
    else:
        source, name, chain = squared.inputs[0], "RMSNormalization", [*upward]
        body = source
    current, scaled = root.outputs[0], False
    while (reader := index.only_reader(current)) is not None and reader.op in (
        "Div",
        "Mul",
        "Add",
        "Reciprocal",
    ):
        others = [entry for entry in reader.inputs if entry != current]
        if others and others[0] == body:
            scaled = True
        elif others and others[0] not in graph.weights:
            break
        chain.append(reader)
        current = reader.outputs[0]
    if scaled:
        _collapse(graph, chain, name, source, current)


def _collapse(graph: Graph, chain: list[Node], op: str, source: str, output: str) -> None:
    first = min(chain, key=lambda node: next(k for k, kept in enumerate(graph.nodes) if kept is node))
    weights = [name for node in chain for name in node.inputs if name in graph.weights]
    large = [name for name in weights if math.prod(graph.weights[name].shape) > 1]
    graph.replace(chain, Node(first.name, op, [source, *large], [output]))


def _other(graph: Graph, node: Node) -> str:
    """The input that is no constant."""
    return next((name for name in node.inputs if name in graph.shapes), "")


def _constant(graph: Graph, node: Node) -> float | None:
    return next((graph.scalar(name) for name in node.inputs if name in graph.weights), None)


def _is_close(value: float | None, wanted: float) -> bool:
    return value is not None and math.isclose(value, wanted, rel_tol=1e-4)


_ANCHORS = {
    "Erf": _gelu,
    "Tanh": _tanh_gelu,
    "Sigmoid": _gated,
    "HardSigmoid": _gated,
    "Clip": _hard_swish,
    "Softplus": _mish,
    "Sqrt": _norm,
}
