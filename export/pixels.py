"""An image's neighbouring pixels as channels of one wider pixel, for the first convolution.

ONNX Runtime's integer convolution looks each pixel of each window up by itself. An image has three bytes a
pixel, so looking up takes longer than multiplying, and a fourth byte must be added, because the fast kernel
takes channels by fours. Channels last, ``g`` neighbours in a row already lie together: seen as one pixel of
``3 g`` channels they are looked up once, and nothing is added. The convolution then writes ``g / stride``
neighbours at once, which lie together likewise. Weights that would reach past a window are zeros; every sum has
the same products, so the function stays the same to the last bit. Measured (AVX512-VNNI, one thread, rounding of
the image included): 3x3 with stride 2 from 224 x 224 to 16 channels 299 us, then 233; to 32, 356 and 302; 7x7
with stride 2 to 64, 1281 and 937; patches of 4 x 4 to 96, 309 and 221; of 16 x 16 to 192, 259 and 173.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekd.export.channels import ChannelClasses
from edgekd.export.graph import drop_unused
from edgekd.export.layouts import Multiples
from edgekd.export.weights import PIXELS

# Zeros multiplied along cost as much as weights. Where they are more than half of what the convolution would
# multiply otherwise, looking up must weigh more than multiplying: that is so with few outputs.
_MORE_PRODUCTS, _PRODUCTS_TIMES_OUTPUTS = 1.5, 96
_MOST = 4  # more neighbours written at once never measured faster
# Neighbours of one colour lie together as the image comes. So many bytes and fewer are moved as one number:
# 150,528 bytes in 27 us by fours and 44 by themselves.
_UNITS = 8


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


def fold_pixels(proto: onnx.ModelProto, multiples: Multiples) -> int:
    """Rewrite the integer convolutions that read the network's image; returns how many.

    Run it while weights are int8 and biases still float.
    """
    if not multiples.fold_pixels:
        return 0
    count, changed = 0, True
    while changed:
        changed = False
        classes = ChannelClasses(proto)
        for value in proto.graph.input:
            for node in _first_convolutions(classes, value.name):
                folding = _folding(classes, node, multiples.dense)
                if folding is not None:
                    _rewrite(classes, node, folding)
                    changed = True
                    count += 1
                    break
    drop_unused(proto)
    del proto.graph.value_info[:]
    return count


def _first_convolutions(classes: ChannelClasses, image: str) -> list[onnx.NodeProto]:
    """``image -> Q -> DQ -> Conv -> Q`` with weights of its own and nothing else in between."""
    graph, found = classes.graph, []
    for quantize in graph.readers.get(image, []):
        if quantize.op_type != "QuantizeLinear":
            continue
        for dequantize in graph.readers.get(quantize.output[0], []):
            for node in graph.readers.get(dequantize.output[0], []):
                readers = graph.readers.get(node.output[0], [])
                alone = len(readers) == 1 and readers[0].op_type == "QuantizeLinear"
                plain = node.op_type == "Conv" and classes.weight(node) is not None
                stored = len(node.input) < 3 or graph.constant(node.input[2]) is not None
                if plain and alone and stored and node.output[0] not in graph.outputs:
                    found.append(node)
    return found


def _folding(classes: ChannelClasses, node: onnx.NodeProto, multiple: int) -> Folding | None:
    """The fewest neighbours whose channels are the fast kernel's multiple; None where that does not pay."""
    weight = classes.weight(node)
    image, result = (classes.shapes.get(name, []) for name in (node.input[0], node.output[0]))
    assert weight is not None
    outputs, channels, _, columns = classes.shapes[weight.output[0]]
    options = {a.name: list(a.ints) if a.ints else a.i for a in node.attribute}
    (_, stride), pads = options.get("strides", [1, 1]), options.get("pads", [0] * 4)
    usual = options.get("group", 1) == 1 and options.get("dilations", [1, 1]) == [1, 1]
    if not usual or "auto_pad" in options or len(image) != 4 or len(result) != 4 or not all(image[1:]):
        return None
    for written in range(1, _MOST + 1):
        wide = stride * written
        if wide == 1 and not channels % multiple:
            return None
        if (wide * channels) % multiple or image[3] % wide or result[3] % written:
            continue
        reached = [stride * k - pads[1] + tap for k in range(written) for tap in range(columns)]
        first, last = min(reached) // wide, max(reached) // wide
        right = result[3] // written - 1 + last - (image[3] // wide - 1)
        if first > 0 or right < 0:
            continue
        kernel = last - first + 1
        products = kernel * wide * channels / (columns * math.ceil(channels / multiple) * multiple)
        if products > _MORE_PRODUCTS and products * outputs > _PRODUCTS_TIMES_OUTPUTS:
            return None
        planes = wide <= _UNITS and channels % multiple != 0
        return Folding(wide, written, kernel, (-first, right), planes, first * wide)
    return None


def _rewrite(classes: ChannelClasses, node: onnx.NodeProto, folding: Folding) -> None:
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
