"""Channels padded with zeros to the multiples that a runtime's fast convolutions need.

ONNX Runtime has two integer convolutions. The fast one wants, on x86, a multiple of 16 channels in a
depthwise convolution and of 4 input channels in a dense one; whatever else comes copies its input first and
takes about twice as long (measured, AVX512-VNNI: depthwise 3x3 of 56 channels 62 us, of 64 channels 32 us;
3x3 from a 3-channel image 376 us, from a 4-channel one 190 us). A padded channel has zero weights where it
is written and where it is read, so the function stays the same to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekd.export.channels import ChannelClasses, Class
from edgekd.export.grouped import densify_groups

Layout = tuple[int, ...]  # for each channel of the file the network's channel, -1 for padding


@dataclass(frozen=True)
class Multiples:
    """What the fast kernels want.

    Attributes:
        depthwise: a multiple of this many channels.
        dense: a multiple of this many input channels.
        products_per_group: see :func:`edgekd.export.grouped.densify_groups`.
    """

    depthwise: int
    dense: int
    products_per_group: int


MULTIPLES = {
    "x86": Multiples(depthwise=16, dense=4, products_per_group=11_000),
    # The dense kernel is taken from 64 input channels on, and those are multiples of 8 everywhere.
    "arm": Multiples(depthwise=8, dense=1, products_per_group=0),
}


class _Again(Exception):
    """A class turned out to be fixed."""


def align_channels(proto: onnx.ModelProto, multiples: Multiples) -> int:
    """Write narrow groups as dense, then pad where every layer that reads or writes the channels can be padded
    too; returns how many tensors between layers were widened.

    Run it while weights are int8 and biases still float.
    """
    densify_groups(proto, multiples.products_per_group)
    widened = _widen(proto, multiples)
    _pad_images(proto, multiples)  # a first layer of few outputs may just have got enough
    return widened


def _widen(proto: onnx.ModelProto, multiples: Multiples) -> int:
    classes = ChannelClasses(proto)
    layouts = _layouts(classes, multiples)
    widened = sum(-1 in layout for layout in layouts.values())
    if not widened:
        return 0
    for node in list(proto.graph.node):
        if node.op_type in ("Conv", "Gemm"):
            _rearrange(classes, node, layouts)
        elif node.op_type == "Slice":
            _move_slice(classes, node, layouts.get(classes.root(node.input[0]) or "", ()))
    del proto.graph.value_info[:]
    return widened


def _layouts(classes: ChannelClasses, multiples: Multiples) -> dict[str, Layout]:
    while True:
        found: dict[str, Layout] = {}
        try:
            for root in classes.roots():
                _layout(classes, root, multiples, found, ())
        except _Again:
            continue
        return found


def _layout(
    classes: ChannelClasses, root: str, multiples: Multiples, found: dict[str, Layout], path: tuple[str, ...]
) -> Layout:
    if root in found:
        return found[root]
    own = classes.of(root)
    assert own is not None
    if not own.joined:
        found[root] = _padded(own, multiples)
        return found[root]
    sources = [[classes.root(name) for name in _sources(node)] for node in own.joined]
    if root in path:
        _fix(classes, sources)
    layouts = []
    for node, roots in zip(own.joined, sources, strict=True):
        parts = [_layout(classes, r, multiples, found, (*path, root)) for r in roots if r is not None]
        layouts.append(_joined(classes, node, parts))
    if any(layout is None or layout != layouts[0] for layout in layouts) or (
        own.fixed and layouts[0] != tuple(range(own.channels))
    ):
        _fix(classes, sources)
    found[root] = layouts[0]  # type: ignore[assignment]
    return found[root]


def _fix(classes: ChannelClasses, sources: list[list[str | None]]) -> None:
    free = [c for roots in sources for r in roots if r is not None and (c := classes.of(r)) and not c.fixed]
    if not free:
        raise AssertionError("layouts of fixed channels differ")
    for entry in free:
        entry.fixed = True
    raise _Again


def _sources(node: onnx.NodeProto) -> list[str]:
    return list(node.input) if node.op_type == "Concat" else [node.input[0]]


def _padded(own: Class, multiples: Multiples) -> Layout:
    identity = tuple(range(own.channels))
    if own.fixed or not own.writers or own.area == 1:
        return identity
    multiple = multiples.depthwise if own.depthwise else multiples.dense
    if not own.depthwise and not own.readers:
        return identity
    missing = -own.channels % multiple
    return identity if missing > own.channels else identity + (-1,) * missing


def _joined(classes: ChannelClasses, node: onnx.NodeProto, parts: list[Layout]) -> Layout | None:
    """The layout that a Concat or Slice makes of its inputs'; None where groups of four channels (a 2:4
    pattern) would not stay together."""
    plain = all(-1 not in part for part in parts)
    if node.op_type == "Slice":
        kept = classes.kept_channels(node)
        assert kept is not None
        start, stop = _moved(kept, parts[0])
        if not plain and kept[0] % 4:
            return None
        return tuple(c - kept[0] if c >= 0 else -1 for c in parts[0][start:stop])
    joined: list[int] = []
    offset = 0
    for part in parts:
        real = sum(c >= 0 for c in part)
        if not plain and real % 4:
            return None
        joined += [c + offset if c >= 0 else -1 for c in part]
        offset += real
    return tuple(joined)


def _moved(kept: tuple[int, int], layout: Layout) -> tuple[int, int]:
    """Where the channels ``kept`` lie in ``layout``, padding behind the last one included."""
    start = layout.index(kept[0])
    return start, layout.index(kept[1]) if kept[1] in layout else len(layout)


def _move_slice(classes: ChannelClasses, node: onnx.NodeProto, layout: Layout) -> None:
    kept = classes.kept_channels(node)
    if kept is None or -1 not in layout:
        return
    for position, value in zip((1, 2), _moved(kept, layout), strict=True):
        stem = classes.graph.fresh_stem(f"{node.output[0]}_{position}", "_channel")
        node.input[position] = classes.graph.add_constant(f"{stem}_channel", np.array([value]))


def _rearrange(classes: ChannelClasses, node: onnx.NodeProto, layouts: dict[str, Layout]) -> None:
    dequantize = classes.weight(node)
    if dequantize is None:
        return
    read = layouts.get(classes.root(node.input[0]) or "", ())
    group = next((a for a in node.attribute if a.name == "group"), None)
    stored = classes.graph.initializers
    if node.op_type == "Gemm":
        transposed = next((a.i for a in node.attribute if a.name == "transB"), 0)
        _spread(stored[dequantize.input[0]], read, 1 if transposed else 0)
        return
    written = layouts.get(classes.root(node.output[0]) or "", ())
    weight = stored[dequantize.input[0]]
    if group is None or group.i == 1:
        _spread(weight, read, 1)
    elif -1 in written:
        group.i = len(written)
    _spread(weight, written, 0)
    for name in dequantize.input[1:]:
        _spread(stored[name], written, 0, first=True)
    if len(node.input) > 2 and -1 in written:
        bias = classes.graph.constant(node.input[2])
        assert bias is not None
        stem = classes.graph.fresh_stem(node.input[2], "_wide")
        node.input[2] = classes.graph.add_constant(f"{stem}_wide", bias)
        _spread(stored[node.input[2]], written, 0)


def _spread(tensor: onnx.TensorProto, layout: Layout, axis: int, *, first: bool = False) -> None:
    """Put ``tensor``'s channels where ``layout`` has them; between them zeros, or the first channel's value."""
    values = numpy_helper.to_array(tensor)
    if -1 not in layout:
        return
    positions = [k for k, channel in enumerate(layout) if channel >= 0]
    assert len(positions) == values.shape[axis], (
        f"{tensor.name}: {values.shape} for {len(positions)} channels"
    )
    shape = [*values.shape]
    shape[axis] = len(layout)
    wide = np.full(shape, values.flat[0] if first else 0, values.dtype)
    wide[(slice(None),) * axis + (positions,)] = np.take(values, [c for c in layout if c >= 0], axis=axis)
    tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))


def _pad_images(proto: onnx.ModelProto, multiples: Multiples) -> None:
    """The network's input has its channels from outside: a Pad of its integers adds the missing ones."""
    classes = ChannelClasses(proto)
    graph = classes.graph
    for value in proto.graph.input:
        own = classes.of(value.name)
        if own is None or own.writers or own.depthwise or own.joined or not own.readers:
            continue
        missing = -own.channels % multiples.dense
        quantizers = graph.readers.get(value.name, [])
        chain = [q for q in quantizers if q.op_type == "QuantizeLinear"]
        if not missing or len(chain) != 1 or len(quantizers) != 1:
            continue
        readers = _convolutions_behind(classes, chain[0].output[0])
        if not readers:
            continue
        amounts = graph.add_constant(f"{value.name}_pads", np.array([0, 0, 0, 0, 0, missing, 0, 0]))
        quantized, padded = chain[0].output[0], f"{value.name}_padded"
        behind = graph.readers[quantized]
        graph.insert_before(behind[0], helper.make_node("Pad", [quantized, amounts], [padded], name=padded))
        for reader in behind:
            reader.input[0] = padded
        layout = (*range(own.channels), *(-1,) * missing)
        for node in readers:
            dequantize = classes.weight(node)
            assert dequantize is not None
            _spread(graph.initializers[dequantize.input[0]], layout, 1)
        del proto.graph.value_info[:]


def _convolutions_behind(classes: ChannelClasses, quantized: str) -> list[onnx.NodeProto]:
    """The dense integer convolutions that read ``quantized`` through DequantizeLinear; none if others do."""
    found = []
    for dequantize in classes.graph.readers.get(quantized, []):
        for node in classes.graph.readers.get(dequantize.output[0], []):
            group = next((a.i for a in node.attribute if a.name == "group"), 1)
            weight = classes.weight(node) if node.op_type == "Conv" and group == 1 else None
            if weight is None or len(classes.graph.constant(weight.input[1])) < 16:  # type: ignore[arg-type]
                return []
            found.append(node)
    return found
