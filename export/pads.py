"""Zero padding before a convolution, moved into the convolution."""

from __future__ import annotations

import onnx
from onnx import helper

from edgekd.export.graph import Graph, drop_unused


def absorb_pads(proto: onnx.ModelProto) -> int:
    """``Pad`` with zeros over height and width, read by convolutions alone, becomes their ``pads`` attribute.

    TensorFlow-style "same" padding is traced as a node of its own; between Q/DQ it would stay in float. The
    pair of Q/DQ after the padding has the scale of the one before, so it goes with it where there is one before.
    Returns how many went.
    """
    graph, count = Graph(proto), 0
    for pad in graph.nodes("Pad"):
        amounts = _amounts(graph, pad)
        if amounts is None:
            continue
        readers = _convolutions(graph, pad.output[0])
        if not readers:
            continue
        for convolution in readers:
            old = next((list(a.ints) for a in convolution.attribute if a.name == "pads"), [0, 0, 0, 0])
            kept = [a for a in convolution.attribute if a.name != "pads"]
            del convolution.attribute[:]
            convolution.attribute.extend(kept)
            total = [before + more for before, more in zip(old, amounts, strict=True)]
            convolution.attribute.append(helper.make_attribute("pads", total))
            if _quantized(graph, pad.input[0]):
                convolution.input[0] = pad.input[0]
        graph.rename_input(pad.output[0], pad.input[0])
        graph.refresh()
        count += 1
    drop_unused(proto)
    return count


def _quantized(graph: Graph, value: str) -> bool:
    producer = graph.producer.get(value)
    return producer is not None and producer.op_type == "DequantizeLinear"


def _amounts(graph: Graph, pad: onnx.NodeProto) -> list[int] | None:
    """``[top, left, bottom, right]`` of a zero padding of height and width alone; else None."""
    mode = next((a.s for a in pad.attribute if a.name == "mode"), b"constant")
    values = graph.constant(pad.input[1]) if len(pad.input) > 1 else None
    filler = graph.constant(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else None
    named = len(pad.input) > 2 and bool(pad.input[2])
    if mode != b"constant" or values is None or values.size != 8 or (named and filler is None):
        return None
    if len(pad.input) > 3 or (filler is not None and filler.any()):
        return None
    amounts: list[int] = values.tolist()
    if any(amounts[k] for k in (0, 1, 4, 5)) or min(amounts) < 0:
        return None
    return [amounts[2], amounts[3], amounts[6], amounts[7]]


def _convolutions(graph: Graph, value: str) -> list[onnx.NodeProto]:
    """The readers of ``value``, through one Q/DQ pair, if all of them are convolutions; else nothing."""
    found: list[onnx.NodeProto] = []
    if value in graph.outputs:
        return []
    for reader in graph.readers.get(value, []):
        if reader.op_type == "Conv" and reader.input[0] == value and not _automatic(reader):
            found.append(reader)
        elif reader.op_type in ("QuantizeLinear", "DequantizeLinear"):
            behind = _convolutions(graph, reader.output[0])
            if not behind:
                return []
            found += behind
        else:
            return []
    return found


def _automatic(convolution: onnx.NodeProto) -> bool:
    return any(a.name == "auto_pad" and a.s not in (b"", b"NOTSET") for a in convolution.attribute)
