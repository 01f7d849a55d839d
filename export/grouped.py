"""Narrow grouped convolutions: several groups as one with zeros between them, or all of them as a dense layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from edgekd.export.channels import ChannelClasses
from edgekd.export.graph import attribute

_LANES = 16  # outputs that the integer product computes at once
_WORTH_PADDING = 0.8  # of the cost without: layers before and behind are padded as well


@dataclass(frozen=True)
class Grouped:
    """A convolution whose groups were written out: ``count`` of them, ``inputs`` and ``outputs`` channels each.

    Attributes:
        merged: how many shall be one; where ``count`` is no multiple, channels have to be padded.
    """

    count: int
    inputs: int
    outputs: int
    merged: int


def densify_groups(proto: onnx.ModelProto, products_per_group: int) -> dict[str, Grouped]:
    """Write grouped integer convolutions as dense ones with zeros between the groups; :func:`regroup` follows.

    ONNX Runtime copies the input of each group by itself: about 47 ns a group and pixel, whatever the group
    holds, in which its dense kernel does some 14,000 products; one group is not copied at all. Measured
    (AVX512-VNNI, one thread, 3 x 3): 24 channels in 3 groups 429 us, dense 104; 368 channels in 46 groups 108 us,
    in 23 groups 70, padded to 384 in 12 groups 53, dense 190; 256 channels of 28 x 28 pixels in 32 groups 1137 us,
    in 8 groups 504, dense 1270. Zeros add nothing to a sum of integers: the function stays the same to the last
    bit.

    Args:
        products_per_group: products in the time that one group's copy takes; 0 leaves everything as it is.

    Returns:
        By the name of what they write those that were rewritten. Depthwise convolutions have kernels of their own
        and stay.
    """
    classes, found = ChannelClasses(proto), dict[str, Grouped]()
    for node in classes.graph.nodes("Conv") if products_per_group else ():
        group, dequantize = attribute(node, "group", 1), classes.weight(node)
        if group == 1 or dequantize is None:
            continue
        stored = classes.graph.initializers[dequantize.input[0]]
        weight = numpy_helper.to_array(stored)
        outputs, width = weight.shape[0] // group, weight.shape[1]
        if width == 1:
            continue
        dense = np.zeros((len(weight), width * group, *weight.shape[2:]), weight.dtype)
        for g in range(group):
            rows = slice(g * outputs, (g + 1) * outputs)
            dense[rows, g * width : (g + 1) * width] = weight[rows]
        stored.CopyFrom(numpy_helper.from_array(dense, stored.name))
        _set_group(node, 1)
        merged = _merged(group, outputs, width * weight[0, 0].size, products_per_group)
        found[node.output[0]] = Grouped(group, width, outputs, merged)
    return found


def regroup(proto: onnx.ModelProto, grouped: dict[str, Grouped], products_per_group: int) -> None:
    """Give each of ``grouped`` the number of groups that costs least, among those that its zeros allow."""
    classes = ChannelClasses(proto)
    for node in classes.graph.nodes("Conv"):
        dequantize = classes.weight(node) if node.output[0] in grouped else None
        if dequantize is None:
            continue
        stored = classes.graph.initializers[dequantize.input[0]]
        weight = numpy_helper.to_array(stored)
        most = math.gcd(*weight.shape[:2])
        allowed = [count for count in range(1, most + 1) if most % count == 0 and _holds(weight, count)]
        outputs, products = len(weight), weight[0].size

        def cost(count: int, outputs: int = outputs, products: int = products) -> float:
            return _cost(count, outputs // count, products // count, products_per_group)

        best = min(allowed, key=cost)
        rows, width = outputs // best, weight.shape[1] // best
        parts = [weight[g * rows : (g + 1) * rows, g * width : (g + 1) * width] for g in range(best)]
        stored.CopyFrom(numpy_helper.from_array(np.concatenate(parts), stored.name))
        _set_group(node, best)


def _merged(count: int, outputs: int, products: int, products_per_group: int) -> int:
    """How many of ``count`` groups to make one of; ``products`` are those of one output."""
    costs = {
        size: _cost(-(-count // size), size * outputs, size * products, products_per_group)
        for size in range(1, count + 1)
    }
    plain = min((size for size in costs if count % size == 0), key=costs.__getitem__)
    padded = min(costs, key=costs.__getitem__)
    return padded if costs[padded] < _WORTH_PADDING * costs[plain] else plain


def _cost(groups: int, outputs: int, products: int, products_per_group: int) -> float:
    """Of a pixel, in products: ``outputs`` a group, ``products`` an output."""
    copied = groups * products_per_group if groups > 1 else 0
    return copied + groups * (-(-outputs // _LANES) * _LANES) * products


def _set_group(node: onnx.NodeProto, count: int) -> None:
    next(each for each in node.attribute if each.name == "group").i = count


def _holds(weight: np.ndarray, count: int) -> bool:
    """Outside ``count`` blocks on its diagonal, ``weight`` ``(out, in, ...)`` is zero."""
    rows, width = len(weight) // count, weight.shape[1] // count
    used = np.asarray(weight.reshape(count, rows, count, width, -1).any(axis=(1, 3, 4)))
    return not used[~np.eye(count, dtype=bool)].any()


def holds_groups(weight: np.ndarray) -> bool:
    """The dense convolution weight ``(out, in, ...)`` is zero outside blocks: a grouped one written out."""
    outputs, inputs = weight.shape[:2]
    if weight.ndim != 4 or 2 * np.count_nonzero(weight) > weight.size:
        return False
    counts = range(2, min(outputs, inputs) // 2 + 1)
    return any(_holds(weight, count) for count in counts if outputs % count == inputs % count == 0)
