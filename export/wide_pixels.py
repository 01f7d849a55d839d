"""A first convolution rewritten to read wider pixels, as :mod:`edgekd.export.pixels` decided."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekd.export.channels import ChannelClasses
from edgekd.export.weights import PIXELS


@dataclass(frozen=True)
class Folding:
    """Attributes:
    wide, written: neighbours read and written as one.
    kernel: width of the new window, in wide pixels.
    pads: wide pixels left and right of the image.
    planes: the channels of a wide pixel are ordered by colour, not by neighbour.
    first: the image's column under the new window's first pixel, for the first output.
    """

    wide: int
    written: int
    kernel: int
    pads: tuple[int, int]
    planes: bool
    first: int


def rewrite(classes: ChannelClasses, node: onnx.NodeProto, folding: Folding) -> None:
    """``node`` and what stands before and behind it, in place."""
    graph = classes.graph
    dequantize = graph.producer[node.input[0]]
    _, channels, height, width = classes.shapes[node.input[0]]
    _, outputs, rows, columns = classes.shapes[node.output[0]]
    options = {a.name: list(a.ints) for a in node.attribute}
    down, across = options.get("strides", [1, 1])
    top, left, bottom, _ = options.get("pads", [0] * 4)
    taps = _rearrange(classes, node, folding, stride=across, left=left)
    stem = node.output[0]
    wide, values = f"{stem}_wide", f"{stem}_read"
    shape = [-1, height, width // folding.wide, channels * folding.wide]
    source, moved = _by_colour(classes, dequantize.input[0], wide, channels, shape, folding)
    for new in (*moved, *_seen_as(classes, source, wide, shape, moved=bool(moved))):
        graph.insert_before(node, new)
    graph.insert_before(
        node, helper.make_node("DequantizeLinear", [wide, *dequantize.input[1:]], [values], name=values)
    )
    node.input[0] = values
    del node.attribute[:]
    node.attribute.extend(
        [
            helper.make_attribute("kernel_shape", [taps, folding.kernel]),
            helper.make_attribute("strides", [down, 1]),
            helper.make_attribute("pads", [top, folding.pads[0], bottom, folding.pads[1]]),
        ]
    )
    if folding.written == 1:
        return
    quantize = graph.readers[stem][0]
    integers, quantize.output[0] = quantize.output[0], f"{stem}_neighbours"
    behind = graph.readers[integers][0]
    for new in _seen_as(classes, quantize.output[0], integers, [-1, rows, columns, outputs]):
        graph.insert_before(behind, new)


def _rearrange(
    classes: ChannelClasses, node: onnx.NodeProto, folding: Folding, *, stride: int, left: int
) -> int:
    """Weight, scales and bias for neighbours as channels; returns the rows of a window."""
    graph = classes.graph
    stored = classes.weight(node)
    assert stored is not None
    tensor = graph.initializers[stored.input[0]]
    weight = numpy_helper.to_array(tensor)
    outputs, channels, taps, columns = weight.shape
    shape = (folding.written, outputs, folding.kernel, folding.wide, channels, taps)
    spread = np.zeros(shape, weight.dtype)
    for k in range(folding.written):
        for column in range(columns):
            pixel, neighbour = divmod(stride * k - left + column - folding.first, folding.wide)
            spread[k, :, pixel, neighbour] = weight[..., column]
    # (written, outputs, kernel, wide, channels, taps) to (out, in, taps, kernel)
    order = (0, 1, 4, 3, 5, 2) if folding.planes else (0, 1, 3, 4, 5, 2)
    spread = spread.transpose(order).reshape(
        folding.written * outputs, folding.wide * channels, taps, folding.kernel
    )
    tensor.CopyFrom(
        numpy_helper.from_array(np.ascontiguousarray(spread), _marked(tensor.name, weight[0].size))
    )
    stored.input[0] = tensor.name
    for name in stored.input[1:]:
        values = numpy_helper.to_array(graph.initializers[name])
        graph.initializers[name].CopyFrom(numpy_helper.from_array(np.tile(values, folding.written), name))
    if len(node.input) > 2:
        bias = graph.constant(node.input[2])
        assert bias is not None
        name = f"{graph.fresh_stem(node.input[2], '_neighbours')}_neighbours"
        node.input[2] = graph.add_constant(name, np.tile(bias, folding.written))
    return int(taps)


def _marked(name: str, products: int) -> str:
    """The channels of a window are no longer those that a pattern of zeros was made for, nor are all of its
    numbers weights: its name tells."""
    return f"{name.removesuffix('_int8')}{PIXELS}{products}_int8"


def _by_colour(
    classes: ChannelClasses, source: str, target: str, channels: int, shape: list[int], folding: Folding
) -> tuple[str, list[onnx.NodeProto]]:
    """Nodes that put the neighbours of one colour behind those of the other, and what they write."""
    if not folding.planes:
        return source, []
    apart = classes.graph.add_constant(
        f"{target}_colours", np.array([-1, channels, shape[1], shape[2], folding.wide])
    )
    split, moved = f"{target}_split", f"{target}_moved"
    return moved, [
        helper.make_node("Reshape", [source, apart], [split], name=split),
        helper.make_node("Transpose", [split], [moved], name=moved, perm=[0, 2, 3, 1, 4]),
    ]


def _seen_as(
    classes: ChannelClasses, source: str, target: str, shape: list[int], *, moved: bool = False
) -> list[onnx.NodeProto]:
    """Nodes that read the image ``source``, channels last, as one of ``shape``. Nothing is moved: the runtime
    has these transpositions around its channels-last convolution, the other way.

    Args:
        moved: ``source`` has its channels last already.
    """
    target_shape = classes.graph.add_constant(f"{target}_shape", np.array(shape))
    last, seen = f"{target}_last", f"{target}_seen"
    return [
        *([] if moved else [helper.make_node("Transpose", [source], [last], name=last, perm=[0, 2, 3, 1])]),
        helper.make_node("Reshape", [source if moved else last, target_shape], [seen], name=seen),
        helper.make_node("Transpose", [seen], [target], name=target, perm=[0, 3, 1, 2]),
    ]
