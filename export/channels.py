"""Which tensors of a graph share their channels, and where their channels may be padded.

Every four- or two-dimensional value gets a *class*: values whose channel axis must keep one layout because
an elementwise operation, a pooling, Q/DQ or a depthwise convolution ties them. A dense convolution is free
to write and to read any layout, since its weights are rearranged with it; a concatenation puts the layouts
of its inputs one after the other. What is not understood fixes the layout of all that it touches.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx

from edgekd.export.graph import Graph, attribute

# Same channels in and out, whatever else they do; 0 stays harmless because nobody reads a padded channel.
_UNARY = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "Relu", "Clip", "HardSigmoid", "Sigmoid", "HardSwish", "LeakyRelu",
     "Erf", "Tanh", "Sqrt", "GlobalAveragePool", "AveragePool", "MaxPool", "Identity"}
)  # fmt: skip
_BINARY = frozenset({"Add", "Sub", "Mul", "Div"})


@dataclass
class Class:
    """Values that share a layout.

    Attributes:
        channels: how many there are.
        fixed: something reads or writes them that cannot be rearranged.
        writers, readers: dense convolutions (and linear layers, as readers).
        depthwise: convolutions that work on each channel by itself.
        area: the largest height times width.
        joined: concatenations and slices that write them.
    """

    channels: int
    fixed: bool = False
    writers: list[onnx.NodeProto] = field(default_factory=list)
    readers: list[onnx.NodeProto] = field(default_factory=list)
    depthwise: list[onnx.NodeProto] = field(default_factory=list)
    area: int = 1
    joined: list[onnx.NodeProto] = field(default_factory=list)


class ChannelClasses:
    """The classes of a graph. ``of(value)`` is None where the channels are unknown."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.graph = Graph(proto)
        self.shapes = static_shapes(proto)
        self._parent: dict[str, str] = {}
        self._classes: dict[str, Class] = {}
        for value, shape in self.shapes.items():
            if value not in self.graph.initializers and len(shape) in (2, 4) and shape[1]:
                self._parent[value] = value
                self._classes[value] = Class(shape[1], area=max(1, int(np.prod(shape[2:]))))
        for value in (*proto.graph.input, *proto.graph.output):
            self._fix(value.name)
        for node in proto.graph.node:
            self._visit(node)

    def root(self, value: str) -> str | None:
        if value not in self._parent:
            return None
        while self._parent[value] != value:
            self._parent[value] = self._parent[self._parent[value]]
            value = self._parent[value]
        return value

    def of(self, value: str) -> Class | None:
        root = self.root(value)
        return None if root is None else self._classes[root]

    def roots(self) -> list[str]:
        """One value of each class, in graph order."""
        return [value for value in self._parent if self._parent[value] == value]

    def weight(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The DequantizeLinear of a layer's integer weight, which nothing else reads; else None."""
        dequantize = self.graph.producer.get(node.input[1])
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            return None
        alone = len(self.graph.readers[dequantize.output[0]]) == 1
        stored = all(name in self.graph.initializers for name in dequantize.input)
        own = all(len(self.graph.readers[name]) == 1 for name in dequantize.input)
        return dequantize if alone and stored and own else None

    def _fix(self, value: str) -> None:
        found = self.of(value)
        if found is not None:
            found.fixed = True

    def _tie(self, first: str, second: str) -> None:
        a, b = self.root(first), self.root(second)
        if a is None or b is None:
            self._fix(first)
            self._fix(second)
            return
        if a == b:
            return
        kept, gone = self._classes[a], self._classes.pop(b)
        self._parent[b] = a
        kept.fixed = kept.fixed or gone.fixed or kept.channels != gone.channels
        kept.writers += gone.writers
        kept.readers += gone.readers
        kept.depthwise += gone.depthwise
        kept.joined += gone.joined
        kept.area = max(kept.area, gone.area)

    def _visit(self, node: onnx.NodeProto) -> None:
        output = node.output[0]
        if output not in self._parent and not any(name in self._parent for name in node.input):
            return
        if node.op_type in _UNARY and self._one_scale(node):
            self._tie(node.input[0], output)
        elif node.op_type == "Conv":
            self._visit_convolution(node)
        elif node.op_type in _BINARY:
            self._visit_binary(node)
        elif node.op_type == "Concat" and attribute(node, "axis") in (1, -3):
            self._join(node, [*node.input])
        elif node.op_type == "Slice" and self.kept_channels(node) is not None:
            self._join(node, [node.input[0]])
        elif node.op_type == "Flatten" and self._pointwise(node.input[0]):
            self._tie(node.input[0], output)
        elif node.op_type == "Gemm" and self.weight(node) is not None and node.input[0] in self._parent:
            found = self.of(node.input[0])
            assert found is not None
            found.readers.append(node)
            self._fix(output)
        else:
            for name in (*node.input, *node.output):
                self._fix(name)

    def _visit_convolution(self, node: onnx.NodeProto) -> None:
        source, target = self.of(node.input[0]), self.of(node.output[0])
        weight = self.weight(node)
        bias_known = len(node.input) < 3 or self.graph.constant(node.input[2]) is not None
        if source is None or target is None or weight is None or not bias_known:
            self._fix(node.input[0])
            self._fix(node.output[0])
            return
        group = attribute(node, "group", 1)
        if group == 1:
            source.readers.append(node)
            target.writers.append(node)
        elif group == source.channels == target.channels:
            target.depthwise.append(node)
            self._tie(node.input[0], node.output[0])
        else:
            source.fixed = target.fixed = True

    def _visit_binary(self, node: onnx.NodeProto) -> None:
        target = self.of(node.output[0])
        for name in node.input:
            if self._scalar(name):
                continue
            source = self.of(name)
            if source is not None and target is not None and source.channels == 1 < target.channels:
                continue  # one map for all channels
            self._tie(name, node.output[0])

    def _join(self, node: onnx.NodeProto, sources: list[str]) -> None:
        target = self.of(node.output[0])
        if target is None or any(name not in self._parent for name in sources):
            for name in (*sources, node.output[0]):
                self._fix(name)
            return
        target.joined.append(node)

    def kept_channels(self, node: onnx.NodeProto) -> tuple[int, int] | None:
        """``(start, stop)`` of a Slice of whole channels; None for any other Slice."""
        if len(node.input) < 4:
            return None
        starts, stops, axes = (self.graph.constant(name) for name in node.input[1:4])
        steps = self.graph.constant(node.input[4]) if len(node.input) > 4 else np.ones(1)
        shape = self.shapes.get(node.input[0])
        if starts is None or stops is None or axes is None or steps is None or not shape or len(shape) < 2:
            return None
        if axes.tolist() not in ([1], [1 - len(shape)]) or steps.tolist() != [1]:
            return None
        start, stop, _ = slice(int(starts[0]), int(stops[0])).indices(shape[1])
        return start, stop

    def _pointwise(self, value: str) -> bool:
        return len(self.shapes.get(value, ())) == 4 and self.shapes[value][2:] == [1, 1]

    def _one_scale(self, node: onnx.NodeProto) -> bool:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            return True
        scale = self.graph.constant(node.input[1])
        return scale is not None and scale.size == 1

    def _scalar(self, name: str) -> bool:
        producer = self.graph.producer.get(name)
        if producer is not None and producer.op_type == "DequantizeLinear":
            name = producer.input[0]
        constant = self.graph.constant(name)
        return constant is not None and constant.size == 1


def static_shapes(proto: onnx.ModelProto) -> dict[str, list[int]]:
    """Dimensions by value; 0 where a dimension is dynamic."""
    graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    return {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
