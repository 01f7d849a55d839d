"""Name lookups and edits on an ONNX graph, shared by the passes and the checks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


class Graph:
    """Name lookups over a ``GraphProto``; rebuilt by whoever changes edges."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.graph = proto.graph
        self.refresh()

    def refresh(self) -> None:
        self.producer = {name: node for node in self.graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        self.outputs = {value.name for value in self.graph.output}

    def constant(self, name: str) -> np.ndarray | None:
        """The value of an initialiser or a Constant node."""
        if name in self.initializers:
            return numpy_helper.to_array(self.initializers[name])
        node = self.producer.get(name)
        if node is not None and node.op_type == "Constant":
            return next((numpy_helper.to_array(a.t) for a in node.attribute if a.name == "value"), None)
        if node is not None and node.op_type == "Identity":
            return self.constant(node.input[0])
        return None

    def only_reader(self, value: str, *op_types: str) -> onnx.NodeProto | None:
        """The node that alone reads ``value``, where that is one of ``op_types`` and no output of the model."""
        readers = self.readers.get(value, [])
        if len(readers) != 1 or value in self.outputs:
            return None
        return readers[0] if not op_types or readers[0].op_type in op_types else None

    def add_constant(self, name: str, value: np.ndarray) -> str:
        if name in self.initializers:
            raise ValueError(f"duplicate initializer {name}")
        tensor = numpy_helper.from_array(np.asarray(value, order="C"), name)
        self.graph.initializer.append(tensor)
        self.initializers[name] = self.graph.initializer[-1]
        return name

    def fresh_stem(self, stem: str, suffix: str) -> str:
        """``stem``, or with a number, such that no initialiser is called ``stem + suffix`` (shared layers)."""
        candidate, count = stem, 0
        while f"{candidate}{suffix}" in self.initializers:
            count += 1
            candidate = f"{stem}_{count}"
        return candidate

    def nodes(self, *op_types: str) -> Iterator[onnx.NodeProto]:
        return (node for node in list(self.graph.node) if node.op_type in op_types)

    def insert_before(self, reader: onnx.NodeProto, node: onnx.NodeProto) -> None:
        position = next(k for k, n in enumerate(self.graph.node) if n is reader or n == reader)
        self.graph.node.insert(position, node)

    def rename_input(self, old: str, new: str) -> None:
        for node in self.readers.get(old, []):
            for k, name in enumerate(node.input):
                if name == old:
                    node.input[k] = new
        self.readers.setdefault(new, []).extend(self.readers.pop(old, []))


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of an attribute of ``node``; lists of numbers as lists."""
    found = next((each for each in node.attribute if each.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def drop_unused(proto: onnx.ModelProto) -> None:
    """Remove nodes and initialisers that nothing reads."""
    while True:
        read = {name for node in proto.graph.node for name in node.input} | {
            v.name for v in proto.graph.output
        }
        dead = [node for node in proto.graph.node if not any(name in read for name in node.output)]
        for node in dead:
            proto.graph.node.remove(node)
        if not dead:
            break
    unused = [tensor for tensor in proto.graph.initializer if tensor.name not in read]
    for tensor in unused:
        proto.graph.initializer.remove(tensor)
