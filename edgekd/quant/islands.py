"""Single convolutions that take less time in float, changes of type and layout included.

ONNX Runtime's float convolution keeps its channels in blocks and is tuned for large windows; its integer
depthwise convolution is a loop over the window's positions. Measured (AVX512-VNNI, one thread): 7 x 7 over 40
channels of 56 x 56 pixels 774 us in integers and 123 in float, 7 x 7 over 48 channels of 64 x 64 490 and 156,
3 x 3 over 32 channels of 56 x 56 71 and 40.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from edgekd.models.calls import Call, CallGraph
from edgekd.quant.call_rules import MOVES_VALUES
from edgekd.quant.placement import plan_regions
from edgekd.quant.regions import DEQUANTIZE, QUANTIZE, Regions

# Nanoseconds an element: from integers, channels last, to float in blocks, or back.
_LAYOUT = 0.40
# From float in order to blocks, or back.
_ORDER = 0.23
# The float convolution must be this much faster: what it costs beside is an estimate.
_MARGIN = 1.25
_WORTH = 10.0  # microseconds; less is within the noise of a profile


def cheaper_alone(
    graph: CallGraph, costs: Mapping[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """Convolutions to leave in float while all around them stays as it is.

    Args:
        graph: of the network that is quantized.
        costs: microseconds an inference in integers and in float, by layer.

    Returns:
        By layer the microseconds in integers, and in float with what it takes to get there and back.
    """
    regions = plan_regions(graph)
    runs = Counter(call.site.module for call in graph.calls if call.op == "conv2d")
    found = {}
    for call in graph.calls:
        name = call.site.module
        if call.op != "conv2d" or name not in costs or runs[name] > 1 or call.index not in regions.integer:
            continue
        integer, floating = costs[name]
        floating += _crossing(graph, call, regions) / call.shape[0] / 1e3
        if integer > max(_MARGIN * floating, floating + _WORTH):
            found[name] = (integer, floating)
    return found


def _crossing(graph: CallGraph, call: Call, regions: Regions) -> float:
    """Nanoseconds for the recorded batch."""
    producer = graph.producer(call.inputs[0])
    size, read = math.prod(call.shape), 0
    if producer is not None:
        read = math.prod(producer.shape)
    in_float = producer is not None and producer.index not in regions.integer
    before = _ORDER - QUANTIZE if in_float else DEQUANTIZE + _LAYOUT
    behind = _ORDER - DEQUANTIZE if _read_in_float(graph, call, regions) else QUANTIZE + _LAYOUT
    return before * (read or size) + behind * size


def _read_in_float(graph: CallGraph, call: Call, regions: Regions) -> bool:
    """Nothing reads the result in integers, moved or not."""
    readers = [reader for value in call.outputs for reader in graph.consumers(value)]
    return all(
        _read_in_float(graph, reader, regions)
        if reader.op in MOVES_VALUES
        else reader.index not in regions.integer and reader.index not in regions.linear
        for reader in readers
    )
