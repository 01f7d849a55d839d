"""Layers of an ncnn ``.param`` file, counted like those of an ONNX file.

Format: ncnn wiki, "param and model file structure" and "operators"; sizes that the file does not state follow from
the layers' parameters. The networks that ncnn's published rows ran are its ``benchmark/models/*.param``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekd.profiles.estimation.graph import Graph, Node, Weight
from edgekd.profiles.estimation.operators import Operator
from edgekd.profiles.estimation.workload import fused_operators

Shape = tuple[int, ...]
_ACTIVATIONS = {1: "relu", 2: "leakyrelu", 3: "clip"}
_SEPARATE = {4: "Sigmoid", 5: "Mish", 6: "HardSwish"}
_SAME = {
    "ReLU": "Relu", "Swish": "Silu", "HardSwish": "HardSwish", "HardSigmoid": "HardSigmoid", "Sigmoid": "Sigmoid",
    "Softmax": "Softmax", "LRN": "LRN", "BinaryOp": "Add", "Eltwise": "Add", "ShuffleChannel": "Transpose",
    "BatchNorm": "BatchNormalization",
}  # fmt: skip
_HIDDEN = frozenset({"Input", "Split", "Noop", "PriorBox", "DetectionOutput", "YoloDetectionOutput"})
_DETECTORS = frozenset({"DetectionOutput", "YoloDetectionOutput", "Yolov3DetectionOutput"})


def read_param(path: Path, shape: Shape) -> tuple[Operator, ...]:
    """Operators of the network on one input of ``shape`` ``(1, channels, height, width)``.

    Detection layers at the end (boxes from scores) count as operators of unknown cost.
    """
    reader = _Reader(shape)
    for line in path.read_text().splitlines()[2:]:
        parts = line.split()
        if not parts:
            continue
        kind, name, reads, writes = parts[0], parts[1], int(parts[2]), int(parts[3])
        names = parts[4 : 4 + reads + writes]
        reader.layer(kind, name, names[:reads], names[reads:], _parameters(parts[4 + reads + writes :]))
    return fused_operators(reader.graph, batch=1)


def _parameters(parts: list[str]) -> dict[int, Any]:
    """``4=1`` is a number, ``-23303=2,1,2`` an array of two for key 3, ``-23330`` the outputs' shapes."""
    found: dict[int, Any] = {}
    for part in parts:
        key, value = part.split("=")
        number = int(key)
        if number <= -23300:
            found[-number - 23300] = [float(entry) for entry in value.split(",")[1:]]
        else:
            found[number] = float(value) if "." in value or "e" in value else int(value)
    return found


class _Reader:
    def __init__(self, shape: Shape) -> None:
        self._input = shape
        self.graph = Graph([], {"input": shape}, set(), {}, {}, {}, {}, set())

    def layer(self, kind: str, name: str, reads: list[str], writes: list[str], given: dict[int, Any]) -> None:
        graph = self.graph
        graph.outputs.difference_update(reads)
        if kind == "Input":
            self._write(writes[0], self._input)
        elif kind == "Split":
            for copy in writes:
                self._write(copy, graph.shapes[reads[0]])
                graph.nodes.append(Node(name, "Identity", reads, [copy]))
        elif kind == "PriorBox":  # computed from sizes alone
            cells = math.prod(graph.shapes[reads[0]][2:])
            self._write(writes[0], (1, 2, cells * 4))
            graph.nodes.append(Node(name, "PriorBox", reads[:1], writes))
        elif kind in _DETECTORS:
            self._write(writes[0], (1, 100, 6))
            graph.nodes.append(Node(name, kind, reads, writes))
        elif kind == "MemoryData":
            sizes = [given[key] for key in (2, 1, 0) if given.get(key)]
            graph.weights[writes[0]] = Weight((1, *sizes), 4)
            return
        elif kind == "Noop":
            graph.outputs.update(reads)
            return
        else:
            self._ordinary(kind, name, reads, writes, given)
        graph.outputs.update(writes)

    def _ordinary(
        self, kind: str, name: str, reads: list[str], writes: list[str], given: dict[int, Any]
    ) -> None:
        shapes = [self.graph.shapes[entry] for entry in reads if entry in self.graph.shapes]
        node = Node(name, _SAME.get(kind, kind), list(reads), list(writes))
        if kind in ("Convolution", "ConvolutionDepthWise", "DeconvolutionDepthWise"):
            outputs = [self._convolution(kind, node, shapes[0], given)]
        elif kind == "InnerProduct":
            outputs = [self._linear(node, shapes[0], given)]
        elif kind in _SHAPES:
            outputs = _SHAPES[kind](node, shapes, given, len(writes))
        else:
            outputs = [_broadcast(shapes)]
        for output, shape in zip(writes, _stated(given) or outputs, strict=True):
            self._write(output, shape)
        self.graph.nodes.append(node)
        self._activate(kind, node, given)

    def _convolution(self, kind: str, node: Node, shape: Shape, given: dict[int, Any]) -> Shape:
        filters, group = given[0], given.get(7, 1) if "DepthWise" in kind else 1
        kernel = (given.get(11, given[1]), given[1])
        stride = (given.get(13, given.get(3, 1)), given.get(3, 1))
        dilation = (given.get(12, given.get(2, 1)), given.get(2, 1))
        left, top = given.get(4, 0), given.get(14, given.get(4, 0))
        pads = (top + given.get(16, top), left + given.get(15, left))
        spans = [step * (size - 1) + 1 for step, size in zip(dilation, kernel, strict=True)]
        transposed = kind.startswith("Deconvolution")
        if transposed:
            out = [(size - 1) * stride[k] + spans[k] - pads[k] for k, size in enumerate(shape[2:])]
        elif left in (-233, -234):  # as TensorFlow's SAME
            out = [-(-size // stride[k]) for k, size in enumerate(shape[2:])]
        else:
            out = [(size + pads[k] - spans[k]) // stride[k] + 1 for k, size in enumerate(shape[2:])]
        node.op = "ConvTranspose" if transposed else "Conv"
        node.attributes = {"group": group, "strides": list(stride), "dilations": list(dilation)}
        weight = (shape[1], filters // group) if transposed else (filters, shape[1] // group)
        if math.prod((*weight, *kernel)) != given[6]:
            raise ValueError(f"{node.name}: weights of {given[6]}, expected {(*weight, *kernel)}")
        self._weights(node, (*weight, *kernel), filters if given.get(5, 0) else 0)
        return (1, filters, *out)

    def _linear(self, node: Node, shape: Shape, given: dict[int, Any]) -> Shape:
        columns = given[0]
        terms = given[2] // columns
        if math.prod(shape) != terms:
            raise ValueError(f"{node.name}: {shape} into {terms} terms")
        node.op, node.attributes = "Gemm", {"transB": 1}
        flat = f"{node.name}/flat"
        self._write(flat, (1, terms))
        self.graph.nodes.append(Node(flat, "Flatten", node.inputs, [flat]))
        node.inputs = [flat]
        self._weights(node, (columns, terms), columns if given.get(1, 0) else 0)
        return (1, columns)

    def _weights(self, node: Node, shape: Shape, bias: int) -> None:
        for suffix, size in (("weight", shape), ("bias", (bias,))):
            if math.prod(size):
                self.graph.weights[f"{node.name}/{suffix}"] = Weight(size, 4)
                node.inputs.append(f"{node.name}/{suffix}")

    def _activate(self, kind: str, node: Node, given: dict[int, Any]) -> None:
        code = given.get(9, 0) if node.op in ("Conv", "Gemm") else 0
        node.activation = _ACTIVATIONS.get(code)
        if code in _SEPARATE:
            before, after = f"{node.name}/linear", node.outputs[0]
            self._write(before, self.graph.shapes[after])
            node.outputs = [before]
            self.graph.nodes.append(
                Node(f"{node.name}/{_SEPARATE[code]}", _SEPARATE[code], [before], [after])
            )

    def _write(self, name: str, shape: Shape) -> None:
        self.graph.shapes[name], self.graph.types[name] = shape, 1


def _stated(given: dict[int, Any]) -> list[Shape]:
    """The shapes that newer files state: each ``dims, width, height, channels``."""
    values = [int(value) for value in given.get(30, [])]
    found = []
    for start in range(0, len(values), 4):
        dims, sizes = values[start], values[start + 1 : start + 4]
        found.append((1, *sizes[:dims][::-1]))
    return found


def _broadcast(shapes: list[Shape]) -> Shape:
    """A vector beside a map is one value a channel."""
    return max(shapes, key=math.prod)


def _concat(_: Node, shapes: list[Shape], given: dict[int, Any], __: int) -> list[Shape]:
    axis = 1 + given.get(0, 0)
    first = shapes[0]
    return [(*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])]


def _slice(node: Node, shapes: list[Shape], given: dict[int, Any], count: int) -> list[Shape]:
    node.op = "Split"
    axis, left = 1 + given.get(1, 0), shapes[0][1 + given.get(1, 0)]
    found = []
    for position, wanted in enumerate(given[0]):
        size = left // (count - position) if wanted == -233 else int(wanted)
        left -= size
        found.append((*shapes[0][:axis], size, *shapes[0][axis + 1 :]))
    return found


def _pool(node: Node, shapes: list[Shape], given: dict[int, Any], _: int) -> list[Shape]:
    if given.get(4, 0):
        node.op = "GlobalAveragePool"
        return [(*shapes[0][:2], 1, 1)]
    node.op = "AveragePool" if given.get(0, 0) else "MaxPool"
    kernel, stride, pad = given[1], given.get(2, 1), given.get(3, 0)
    right = given.get(14, pad)
    node.attributes = {"kernel_shape": [given.get(11, kernel), kernel], "strides": [stride]}
    mode = given.get(5, 0)
    out = []
    for size in shapes[0][2:]:
        free = size + pad + right - kernel
        out.append(
            -(-free // stride) + 1 if mode == 0 else -(-size // stride) if mode == 2 else free // stride + 1
        )
    return [(*shapes[0][:2], *out)]


def _permute(node: Node, shapes: list[Shape], given: dict[int, Any], _: int) -> list[Shape]:
    node.op = "Transpose"
    order = {0: (0, 1, 2), 1: (0, 2, 1), 2: (1, 0, 2), 3: (1, 2, 0), 4: (2, 0, 1), 5: (2, 1, 0)}[
        given.get(0, 0)
    ]
    sizes = shapes[0][1:]
    if len(sizes) == 2:
        sizes = sizes[::-1] if given.get(0, 0) == 1 else sizes
        return [(1, *sizes)]
    return [(1, *(sizes[axis] for axis in order))]


def _flatten(node: Node, shapes: list[Shape], _: dict[int, Any], __: int) -> list[Shape]:
    return [(1, math.prod(shapes[0]))]


def _reshape(node: Node, shapes: list[Shape], given: dict[int, Any], _: int) -> list[Shape]:
    sizes = [given[key] for key in (2, 1, 0) if key in given and given[key] != -233]
    sizes = [shapes[0][1 + k] if size == 0 else size for k, size in enumerate(sizes)]
    known = math.prod(size for size in sizes if size > 0)
    return [(1, *(math.prod(shapes[0]) // known if size == -1 else size for size in sizes))]


def _resize(node: Node, shapes: list[Shape], given: dict[int, Any], _: int) -> list[Shape]:
    node.op = "Resize"
    height = given.get(3) or int(shapes[0][2] * given.get(1, 1))
    width = given.get(4) or int(shapes[0][3] * given.get(2, 1))
    return [(*shapes[0][:2], height, width)]


def _reduce(node: Node, shapes: list[Shape], given: dict[int, Any], _: int) -> list[Shape]:
    node.op = "GlobalAveragePool"
    return [(*shapes[0][:2], 1, 1)]


def _pad(node: Node, shapes: list[Shape], given: dict[int, Any], _: int) -> list[Shape]:
    node.op = "Pad"
    channels, height, width = shapes[0][1:]
    front = given.get(7, 0) + given.get(8, 0)
    return [
        (
            1,
            channels + front,
            height + given.get(0, 0) + given.get(1, 0),
            width + given.get(2, 0) + given.get(3, 0),
        )
    ]


def _crop(node: Node, shapes: list[Shape], given: dict[int, Any], _: int) -> list[Shape]:
    """Of the channels, from one index up to another; the file states the shape otherwise."""
    node.op = "Slice"
    if 9 in given and len(given[9]) == 1 and given.get(11, [0]) == [0]:
        end = min(int(given[10][0]), shapes[0][1])
        return [(1, end - int(given[9][0]), *shapes[0][2:])]
    return [shapes[0]] if 30 in given else [(1, *shapes[1][1:])]


_SHAPES: dict[str, Callable[[Node, list[Shape], dict[int, Any], int], list[Shape]]] = {
    "Concat": _concat,
    "Slice": _slice,
    "Pooling": _pool,
    "Permute": _permute,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Interp": _resize,
    "Reduction": _reduce,
    "Padding": _pad,
    "Crop": _crop,
}
