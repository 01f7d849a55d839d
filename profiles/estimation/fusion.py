"""What every runtime fuses: batch norm and padding into the convolution, a ReLU into whatever it follows."""

from __future__ import annotations

import math

from edgekd.profiles.estimation.graph import Graph, Index, Node

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_HOSTS = WEIGHTED | {"Add", "Sum", "BatchNormalization"}
_FUSED = {"Relu": "relu", "Clip": "clip", "LeakyRelu": "leakyrelu", "PRelu": "prelu"}
_WINDOWS = frozenset({"Conv", "AveragePool", "MaxPool"})


def drop_noops(graph: Graph) -> None:
    """Identity, Dropout, a change of type into the same type, a change of axes that leaves all in place."""
    for node in list(graph.nodes):
        source = node.inputs[0] if node.inputs else ""
        if source not in graph.shapes or not _is_noop(graph, node, source):
            continue
        graph.nodes.remove(node)
        graph.rename(node.outputs[0], source)


def _is_noop(graph: Graph, node: Node, source: str) -> bool:
    if node.op in ("Identity", "Dropout"):
        return True
    if node.op == "Cast":
        return graph.types[node.outputs[0]] == graph.types[source]
    if node.op == "Transpose":
        order = node.attributes.get("perm") or list(range(len(graph.shapes[source])))[::-1]
        moved = [axis for axis in order if graph.shapes[source][axis] > 1]
        return moved == sorted(moved)
    if node.op in ("Expand", "Tile", "Slice", "Pad", "Resize", "Upsample"):
        return graph.shapes[node.outputs[0]] == graph.shapes[source] and node.op != "Resize"
    return False


def fold_batch_norms(graph: Graph) -> None:
    """Into the convolution or linear layer before it, or, where nothing is padded, after it."""
    index = graph.index()
    for node in [node for node in graph.nodes if node.op == "BatchNormalization"]:
        before = index.producer.get(node.inputs[0])
        if before is None or before.op not in WEIGHTED or index.only_reader(node.inputs[0]) is not node:
            continue
        if not any(name in graph.weights for name in before.inputs):
            continue
        before.outputs = [node.outputs[0]]
        if len([name for name in before.inputs if name]) < 3:
            before.inputs = [*before.inputs[:2], node.inputs[2]]  # the shift becomes the bias
        graph.nodes.remove(node)
        index = graph.index()


def fold_scales(graph: Graph) -> None:
    """A constant factor or shift of each channel, after a convolution or linear layer, is part of its weights."""
    index = graph.index()
    for node in [node for node in graph.nodes if node.op in ("Add", "Sub", "Mul", "Div")]:
        source = node.inputs[0] if node.inputs[0] in graph.shapes else node.inputs[1]
        constant = next((name for name in node.inputs if name in graph.weights), None)
        before = index.producer.get(source)
        if constant is None or before is None or before.op not in WEIGHTED or before.activation is not None:
            continue
        if index.only_reader(source) is not node or before.inputs[1] not in graph.weights:
            continue
        turned = node.op in ("Sub", "Div") and node.inputs[0] == constant
        if turned or not _is_per_channel(graph, before, source, constant):
            continue
        if node.op in ("Add", "Sub") and len([name for name in before.inputs if name]) < 3:
            before.inputs = [*before.inputs[:2], constant]
        before.outputs = [node.outputs[0]]
        graph.nodes.remove(node)
        index = graph.index()


def _is_per_channel(graph: Graph, layer: Node, value: str, constant: str) -> bool:
    """One number for each channel, or one for all."""
    shape, after = graph.weights[constant].shape, graph.shapes[value]
    if math.prod(shape) == 1:
        return True
    axis = 1 if layer.op in ("Conv", "ConvTranspose") else len(after) - 1
    place = axis - (len(after) - len(shape))
    return place >= 0 and shape[place] == after[axis] == math.prod(shape)


def fold_pads(graph: Graph) -> None:
    """Zeros around the input of a window are that window's own padding."""
    index = graph.index()
    for node in [node for node in graph.nodes if node.op == "Pad"]:
        reader = index.only_reader(node.outputs[0])
        if reader is None or reader.op not in _WINDOWS or node.inputs[0] not in graph.shapes:
            continue
        if node.attributes.get("mode", b"constant") != b"constant":
            continue
        before, after = graph.shapes[node.inputs[0]], graph.shapes[node.outputs[0]]
        if before[:2] != after[:2]:
            continue
        reader.inputs[0] = node.inputs[0]
        graph.nodes.remove(node)
        index = graph.index()


def fuse_activations(graph: Graph) -> None:
    """ReLU, clip and leaky ReLU run where the value before them is written."""
    index = graph.index()
    for node in [node for node in graph.nodes if node.op in _FUSED]:
        before = index.producer.get(node.inputs[0])
        if before is None or before.op not in _HOSTS or before.activation is not None:
            continue
        if index.only_reader(node.inputs[0]) is not node or len(before.outputs) != 1:
            continue
        before.activation = _FUSED[node.op]
        before.outputs = [node.outputs[0]]
        graph.nodes.remove(node)
        index = _moved(index, before)


def _moved(index: Index, node: Node) -> Index:
    index.producer[node.outputs[0]] = node
    return index
