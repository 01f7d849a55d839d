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

import onnx

from edgekd.export.channels import ChannelClasses
from edgekd.export.graph import drop_unused
from edgekd.export.layouts import Multiples
from edgekd.export.wide_pixels import Folding, rewrite

# Zeros multiplied along cost as much as weights. Where they are more than half of what the convolution would
# multiply otherwise, looking up must weigh more than multiplying: that is so with few outputs.
_MORE_PRODUCTS, _PRODUCTS_TIMES_OUTPUTS = 1.5, 96
_MOST = 4  # more neighbours written at once never measured faster
# Neighbours of one colour lie together as the image comes. So many bytes and fewer are moved as one number:
# 150,528 bytes in 27 us by fours and 44 by themselves.
_UNITS = 8


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
                    rewrite(classes, node, folding)
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
