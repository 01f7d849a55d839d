"""Which nodes of a file, and which layers of the network, an operator of the optimized graph came from.

ONNX Runtime fuses, renames, reorders and inserts. What it keeps is this: most tensors between its operators are
tensors of the file, and where they are not, the operator's name holds that of a node or tensor of the file and a
suffix. So each operator is *anchored* at a tensor or node of the file; from there the file is walked back until
the next anchor, and what lies between belongs to the operator. What nobody reached so (an Add that was fused
into the convolution before it) belongs to who computes its input.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from edgekd.profiles.onnx_graph import OnnxNode

# Suffixes of ONNX Runtime's transformers (onnxruntime/core/optimizer), as seen in 1.31's optimized graphs.
_SUFFIX = re.compile(
    r"(_token_\d+|_nchwc|_nhwc|_new_reshape|/duplicated|/MatMulAddFusion|/MatMulScaleFusion/?)$"
)
# What an operator is about: a walk ends at it.
_CORE = frozenset({"Conv", "ConvTranspose", "ConvInteger", "Gemm", "MatMul", "MatMulInteger", "Einsum"}
                  | {"LSTM", "GRU", "MaxPool", "AveragePool", "GlobalAveragePool", "Softmax"})  # fmt: skip
# An operator of these kinds only moves data; it owns no arithmetic of the file.
_MOVING = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast", "Split", "Slice"}
                    | {"ReorderInput", "ReorderOutput", "Concat", "Gather", "Expand", "Pad"})  # fmt: skip
_CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_NO_DATA = frozenset({"Shape", "Size", "Constant", "ConstantOfShape", "Range"})


def origins(original: Sequence[OnnxNode], optimized: Sequence[OnnxNode]) -> dict[str, tuple[OnnxNode, ...]]:
    """Nodes of the file by name of the optimized operator, in their order; none for what was inserted.

    Args:
        original, optimized: nodes of the two graphs, each in an order of execution.
    """
    alive = _with_data(original)
    makers = {tensor: place for place, node in enumerate(original) for tensor in node.outputs}
    names = {node.name: place for place, node in enumerate(original) if node.name}
    anchors = [_anchored(node, makers, names) for node in optimized]
    taken = {place for places in anchors for place in places}
    owner: dict[int, int] = {}
    for position, (node, places) in enumerate(zip(optimized, anchors)):  # noqa: B905  (Python 3.8 on a board)
        todo = list(places)
        while todo:
            place = todo.pop()
            at = original[place]
            if place in owner or place not in alive or (place in taken and place not in places):
                continue
            if node.op in _MOVING and at.op not in _MOVING:
                continue
            owner[place] = position
            if at.op == "DequantizeLinear":
                continue  # before it stands what ends another operator
            before = [makers[tensor] for tensor in at.inputs if tensor in makers]
            if at.op in _CORE:
                before = [maker for maker in before if original[maker].op == "DequantizeLinear"]
            todo += before
    _give_rest(original, optimized, alive, makers, owner)
    found: dict[str, list[OnnxNode]] = {node.name: [] for node in optimized}
    for place in sorted(owner):
        found[optimized[owner[place]].name].append(original[place])
    return {name: tuple(nodes) for name, nodes in found.items()}


def _give_rest(
    original: Sequence[OnnxNode],
    optimized: Sequence[OnnxNode],
    alive: set[int],
    makers: Mapping[str, int],
    owner: dict[int, int],
) -> None:
    """What no walk reached goes to who computes its input, or else to who reads its output."""

    def fits(position: int, node: OnnxNode) -> bool:
        return node.op in _MOVING or optimized[position].op not in _MOVING

    for place, at in enumerate(original):
        if place in alive and place not in owner:
            before = [owner[makers[t]] for t in at.inputs if t in makers and makers[t] in owner]
            if before and fits(max(before), at):
                owner[place] = max(before)
    readers: dict[str, int] = {}
    for place, at in reversed(list(enumerate(original))):
        if place in alive and place not in owner:
            after = [readers[tensor] for tensor in at.outputs if tensor in readers]
            if after:
                owner[place] = min(after)
        if place in owner:
            readers.update(dict.fromkeys(at.inputs, owner[place]))


def with_inserted(
    optimized: Sequence[OnnxNode], found: Mapping[str, tuple[OnnxNode, ...]]
) -> dict[str, tuple[str, ...]]:
    """Layers by name of the optimized operator; one that was inserted counts for the operator that it serves.

    That is the next one that reads its result, or else the one before it.
    """
    layers = {node.name: layers_of(found.get(node.name, ())) for node in optimized}
    inserted = {node.name for node in optimized if not found.get(node.name)}
    readers = {tensor: node.name for node in reversed(optimized) for tensor in node.inputs}
    for node in reversed(optimized):
        if node.name in inserted:
            after = [readers[tensor] for tensor in node.outputs if tensor in readers]
            layers[node.name] = next((layers[name] for name in after if layers[name]), ())
    makers = {tensor: node.name for node in optimized for tensor in node.outputs}
    for node in optimized:
        if node.name in inserted and not layers[node.name]:
            before = [makers[tensor] for tensor in node.inputs if tensor in makers]
            layers[node.name] = next((layers[name] for name in before if layers[name]), ())
    return layers


def layers_of(nodes: Sequence[OnnxNode]) -> tuple[str, ...]:
    """The modules of the network that nodes belong to, each once; those with weights first."""
    telling = [node for node in nodes if node.op not in _CONVERSIONS] or list(nodes)
    ranked = sorted(telling, key=lambda node: node.op not in _CORE)
    return tuple(dict.fromkeys(filter(None, map(layer_of, ranked))))


def layer_of(node: OnnxNode) -> str:
    """A node's module, such as ``layer1.0.conv1``; empty where nothing tells.

    A weight's name says it best; then the scopes that ``torch.onnx`` wrote beside the node, then the node's
    name: ``layer1.0.conv1/Conv`` of edgekd, ``/layer1/layer1.0/conv1/Conv`` of the older exporter.
    """
    for tensor in node.inputs:
        if tensor in node.constants and tensor.endswith(".weight") and node.op in _CORE:
            return tensor[: -len(".weight")]
    if node.scopes:
        return next((scope for scope in reversed(node.scopes[:-1]) if scope), "")
    parts = node.name.split("/")[:-1]
    path: list[str] = []
    for part in filter(None, parts):
        if path and part.startswith(path[-1] + "."):
            path.pop()
        path.append(part)
    return ".".join(path)


def _anchored(node: OnnxNode, makers: Mapping[str, int], names: Mapping[str, int]) -> list[int]:
    """Places of the file's nodes that the operator's outputs or name stand for."""
    places = [makers[tensor] for tensor in node.outputs if tensor in makers]
    name = node.name
    while not places:
        if name in names:
            return [names[name]]
        if name in makers:
            return [makers[name]]
        shorter = _SUFFIX.sub("", name)
        if shorter == name:
            break
        name = shorter
    return places


def _with_data(nodes: Sequence[OnnxNode]) -> set[int]:
    """Places of nodes that compute on what the model is fed: neither constants nor shapes."""
    made = {tensor for node in nodes for tensor in node.outputs}
    data = {
        tensor
        for node in nodes
        for tensor in node.inputs
        if tensor not in made and tensor not in node.constants
    }
    alive = set()
    for place, node in enumerate(nodes):
        if node.op not in _NO_DATA and data.intersection(filter(None, node.inputs)):
            alive.add(place)
            data.update(node.outputs)
    return alive
