"""What is the same for every sample is computed once, when the file is written.

A position code of sines is made from the sizes of the image, at each run, and the batch with it. It does not depend on
what the image shows: one sample of it is a constant, which broadcasts. (Constants that do not even depend on the batch
are :mod:`edgekd.export.constants`.)
"""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto

from edgekd.export.graph import Graph, drop_unused
from edgekd.export.shapes import known_shapes
from edgekd.export.weights import stored_weights

# Key of a file's properties: a JSON list of layers.
CONSTANT_LAYERS = "constant_layers"
# Of two tensors of the same rank, the first of which may have one sample.
_BROADCASTS = frozenset({"Add", "Sub", "Mul", "Div"})
_SHAPES = frozenset({"Shape", "Size"})
_OTHERWISE_EACH_TIME = frozenset(
    {
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Bernoulli",
        "Multinomial",
        "Dropout",
    }
)
_LARGEST = 1 << 20  # bytes


def fold_samples(proto: onnx.ModelProto) -> list[str]:
    """Sums and products read a constant where what they read is the same for every sample.

    Returns:
        The layers that are not in the file any more, because what they read is constant.
    """
    graph = Graph(proto)
    places = _places(graph)
    if not places or any(len(value.type.tensor_type.shape.dim) < 3 for value in proto.graph.input):
        return []
    shapes = known_shapes(proto)
    found = _one_sample(proto, sorted({node.input[k] for node, k in places}))
    before = {weight.layer for weight in stored_weights(proto)}
    for node, k in places:
        value, other = found.get(node.input[k]), shapes.get(node.input[1 - k], [])
        if value is None or value.ndim != len(other):
            continue
        name = f"{node.input[k]}_sample"
        node.input[k] = name if name in graph.initializers else graph.add_constant(name, value)
    drop_unused(proto)
    return sorted(before - {weight.layer for weight in stored_weights(proto)})


def constant_layers(proto: onnx.ModelProto) -> list[str]:
    """As a file says what :func:`fold_samples` returned."""
    text = next((entry.value for entry in proto.metadata_props if entry.key == CONSTANT_LAYERS), "[]")
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _places(graph: Graph) -> list[tuple[onnx.NodeProto, int]]:
    """Nodes that depend on the image, with the position of an input that does not, and is no constant."""
    fixed = set(graph.initializers)
    for node in graph.graph.node:
        inputs = [name for name in node.input if name]
        nested = any(attribute.type == attribute.GRAPH for attribute in node.attribute)
        if node.op_type in _SHAPES or (
            all(name in fixed for name in inputs) and not nested and node.op_type not in _OTHERWISE_EACH_TIME
        ):
            fixed.update(node.output)
    return [
        (node, k)
        for node in graph.nodes(*_BROADCASTS)
        for k in (0, 1)
        if node.input[k] in fixed and node.input[1 - k] not in fixed and graph.constant(node.input[k]) is None
    ]


def _one_sample(proto: onnx.ModelProto, names: list[str]) -> dict[str, np.ndarray]:
    """Of the named values those that are the same for every sample, whatever the images: ``(1, ...)`` float32."""
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except (
        Exception
    ):  # the runtime's exceptions derive from Exception alone; what it cannot load stays as it is
        return {}
    (image,) = proto.graph.input
    rest = [dim.dim_value for dim in image.type.tensor_type.shape.dim][1:]
    if not all(rest) or image.type.tensor_type.elem_type != TensorProto.FLOAT:
        return {}
    random = np.random.default_rng(0)
    one, two = (
        session.run(names, {image.name: random.normal(size=(batch, *rest)).astype(np.float32)})
        for batch in (1, 2)
    )
    return {
        name: single
        for name, single, pair in zip(names, one, two, strict=True)
        if single.dtype == np.float32 and single.nbytes <= _LARGEST and single.ndim and len(single) == 1
        and np.array_equal(pair, np.concatenate([single, single]))
    }  # fmt: skip
