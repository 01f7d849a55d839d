"""Channels padded with zeros to the multiples that a runtime's fast convolutions need.

ONNX Runtime has two integer convolutions. The fast one wants, on x86, a multiple of 16 channels in a
depthwise convolution and of 4 input channels in a dense one; whatever else comes copies its input first and
takes about twice as long (measured, AVX512-VNNI: depthwise 3x3 of 56 channels 62 us, of 64 channels 32 us;
3x3 from a 3-channel image 376 us, from a 4-channel one 190 us). A padded channel has zero weights where it
is written and where it is read, so the function stays the same to the last bit.
"""

from __future__ import annotations

import numpy as np
import onnx

from edgekd.export.channels import ChannelClasses
from edgekd.export.grouped import Grouped, densify_groups, regroup
from edgekd.export.image_channels import pad_images
from edgekd.export.layouts import MULTIPLES, Layout, Multiples, find_layouts, moved
from edgekd.export.pixels import fold_pixels
from edgekd.export.spread import spread


def align_channels(proto: onnx.ModelProto, multiples: Multiples) -> int:
    """Merge narrow groups, pad where every layer that reads or writes the channels can be padded
    too, and read the image as wider pixels; returns how many tensors between layers were widened.

    Run it while weights are int8 and biases still float.
    """
    grouped = densify_groups(proto, multiples.products_per_group)
    widened = _widen(proto, multiples, grouped)
    regroup(proto, grouped, multiples.products_per_group)
    fold_pixels(proto, multiples)
    pad_images(proto, multiples)  # a first layer of few outputs may just have got enough
    return widened


def _widen(proto: onnx.ModelProto, multiples: Multiples, grouped: dict[str, Grouped]) -> int:
    classes = ChannelClasses(proto)
    layouts = _layouts(classes, multiples, grouped)
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


def _layouts(classes: ChannelClasses, multiples: Multiples, grouped: dict[str, Grouped]) -> dict[str, Layout]:
    """Groups are padded on both sides of their convolution, or on neither."""
    wanted = {name: (each.merged * each.inputs, each.merged * each.outputs) for name, each in grouped.items()}
    while True:
        layouts = find_layouts(classes, multiples, wanted)
        torn = []
        for name, each in grouped.items():
            read = classes.graph.producer[name].input[0]
            sides = ((read, each.inputs), (name, each.outputs))
            counts = [_groups(layouts.get(classes.root(v) or "", ()), size, each.count) for v, size in sides]
            if counts[0] is None or counts[0] != counts[1]:
                torn += [found for value, _ in sides if (found := classes.of(value)) is not None]
        if all(found.fixed for found in torn):
            return layouts
        for found in torn:
            found.fixed = True


def _groups(layout: Layout, size: int, count: int) -> int | None:
    """How many groups of ``size`` channels ``layout`` has; None where the ``count`` of the network are torn apart."""
    own = tuple(range(size * count))
    if layout[: len(own)] not in (own, ()) or len(layout) % size:
        return None
    return len(layout) // size or count


def _move_slice(classes: ChannelClasses, node: onnx.NodeProto, layout: Layout) -> None:
    kept = classes.kept_channels(node)
    if kept is None or -1 not in layout:
        return
    for position, value in zip((1, 2), moved(kept, layout), strict=True):
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
        spread(stored[dequantize.input[0]], read, 1 if transposed else 0)
        return
    written = layouts.get(classes.root(node.output[0]) or "", ())
    weight = stored[dequantize.input[0]]
    if group is None or group.i == 1:
        spread(weight, read, 1)
    elif -1 in written:
        group.i = len(written)
    spread(weight, written, 0)
    for name in dequantize.input[1:]:
        spread(stored[name], written, 0, first=True)
    if len(node.input) > 2 and -1 in written:
        bias = classes.graph.constant(node.input[2])
        assert bias is not None
        stem = classes.graph.fresh_stem(node.input[2], "_wide")
        node.input[2] = classes.graph.add_constant(f"{stem}_wide", bias)
        spread(stored[node.input[2]], written, 0)


__all__ = ["MULTIPLES", "Multiples", "align_channels"]
