"""A network's nodes without its weights: small, easy to rewrite, every shape known.

What :mod:`~edgekd.profiles.estimation.loading` reads, the fusions rewrite and
:mod:`~edgekd.profiles.estimation.classify` counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Node:
    """Attributes:
    inputs: names; an empty one stands for an input that was left out.
    activation: fused into it.
    integer: computes on int8.
    """

    name: str
    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)
    activation: str | None = None
    integer: bool = False


@dataclass(frozen=True)
class Weight:
    """A value that no input changes.

    Attributes:
        element_bytes: as stored; 0.5 for four bits.
        sample: a few whole rows, as ``(rows, ...)``, where the file's bytes are at hand and the shape is the
            stored one.
        transposed: the stored tensor was transposed on its way to the reader.
    """

    shape: tuple[int, ...]
    element_bytes: float
    sample: Callable[[], np.ndarray | None] | None = None
    transposed: bool = False


@dataclass
class Graph:
    """Attributes:
    shapes: of every value that depends on an input; complete.
    types: ONNX element type of these.
    weights: values that no input changes, by name.
    values: contents of the small ones among them.
    dynamic: values whose shape depends on data and was guessed.
    """

    nodes: list[Node]
    inputs: dict[str, tuple[int, ...]]
    outputs: set[str]
    shapes: dict[str, tuple[int, ...]]
    types: dict[str, int]
    weights: dict[str, Weight]
    values: dict[str, np.ndarray]
    dynamic: set[str]
    opset: int = 0

    def elements(self, name: str) -> int:
        return math.prod(self.shapes[name])

    def activations(self, node: Node) -> list[str]:
        """Inputs that are no weights, each once."""
        return list(dict.fromkeys(name for name in node.inputs if name in self.shapes))

    def scalar(self, name: str) -> float | None:
        """A constant's value when all its elements are equal."""
        value = self.values.get(name)
        if value is None or value.size == 0 or not np.all(value == value.flat[0]):
            return None
        return float(value.flat[0])

    def index(self) -> Index:
        return Index(self)

    def replace(self, gone: Iterable[Node], by: Node | None = None) -> None:
        """Take nodes out; ``by`` stands where the last of them stood."""
        marked = {id(node) for node in gone}
        last = max(position for position, node in enumerate(self.nodes) if id(node) in marked)
        kept = []
        for position, node in enumerate(self.nodes):
            if id(node) not in marked:
                kept.append(node)
            if position == last and by is not None:
                kept.append(by)
        self.nodes = kept

    def rename(self, old: str, new: str) -> None:
        """Whoever reads ``old`` reads ``new``."""
        for node in self.nodes:
            if old in node.inputs:
                node.inputs = [new if name == old else name for name in node.inputs]
        if old in self.outputs:
            self.outputs.add(new)


class Index:
    """Who writes and who reads each value; stale once the graph is rewritten."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.producer: dict[str, Node] = {name: node for node in graph.nodes for name in node.outputs if name}
        self.readers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for name in dict.fromkeys(node.inputs):
                self.readers.setdefault(name, []).append(node)

    def only_reader(self, name: str) -> Node | None:
        """The one node that reads a value that nobody else sees."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self._graph.outputs else None
