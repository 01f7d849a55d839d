"""Output shapes of ONNX Runtime's own operators (domain ``com.microsoft``), as its optimizer and quantizers write them.

Source: ONNX Runtime, docs/ContribOperators.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_FLOAT = 1
_DOMAIN = "com.microsoft"

# How the shape of the first output follows from the inputs.
_AS_FIRST = frozenset(
    {
        "Gelu",
        "FastGelu",
        "BiasGelu",
        "QuickGelu",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    }
    | {"QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "QuantizeLinear", "DequantizeLinear"}
    | {"RotaryEmbedding", "GroupNorm", "SkipGroupNorm"}
)
_BROADCAST = {"QLinearAdd": (0, 3), "QLinearMul": (0, 3)}
_PRODUCT = {
    "FusedMatMul": (0, 1), "FusedGemm": (0, 1), "QGemm": (0, 3), "QLinearMatMul": (0, 3),
    "DynamicQuantizeMatMul": (0, 1), "MatMulIntegerToFloat": (0, 1),
}  # fmt: skip
_OTHER = ["FusedConv", "NhwcFusedConv", "MatMulNBits", "QLinearConcat", "QLinearGlobalAveragePool"]
_OTHER += ["MultiHeadAttention", "Attention"]
CONTRIB = {(_DOMAIN, op) for op in (*_AS_FIRST, *_BROADCAST, *_PRODUCT, *_OTHER)}

Shape = tuple[int, ...]


def contrib_shapes(
    proto: Any, attributes: dict[str, Any], shapes: dict[str, Shape], types: dict[str, int]
) -> dict[str, tuple[Shape, int]]:
    """Shape and element type of the first output; further ones, if any, are as the first."""
    op, first = proto.op_type, shapes[proto.input[0]]
    kind = types[proto.input[0]]
    if op in _BROADCAST:
        shape = _broadcast(first, shapes[proto.input[_BROADCAST[op][1]]])
    elif op in _PRODUCT:
        shape = _product(first, shapes[proto.input[_PRODUCT[op][1]]], attributes)
        kind = _FLOAT if op in ("DynamicQuantizeMatMul", "MatMulIntegerToFloat") else kind
    elif op == "MatMulNBits":
        shape = (*first[:-1], int(attributes["N"]))
    elif op in ("FusedConv", "NhwcFusedConv"):
        shape = _convolution(first, shapes[proto.input[1]], attributes, channels_last=op == "NhwcFusedConv")
    elif op == "QLinearConcat":
        parts = [shapes[name] for name in proto.input[2::3]]
        axis = int(attributes["axis"]) % len(parts[0])
        shape = (*parts[0][:axis], sum(part[axis] for part in parts), *parts[0][axis + 1 :])
        kind = types[proto.input[2]]
    elif op == "QLinearGlobalAveragePool":
        last = bool(attributes.get("channels_last", 0))
        shape = (first[0], 1, 1, first[3]) if last else (*first[:2], *(1 for _ in first[2:]))
    elif op == "Attention":
        shape = (*first[:-1], shapes[proto.input[1]][-1] // 3)
    elif op == "MultiHeadAttention":
        value = shapes.get(proto.input[2], first) if len(proto.input) > 2 else first
        shape = (first[0], first[1], value[-1] if len(value) == 3 else first[-1])
    else:
        shape = first
        if op == "DequantizeLinear":
            kind = _FLOAT
        elif op == "QuantizeLinear":
            kind = types.get(proto.input[2], 2) if len(proto.input) > 2 else 2
    return {output: (shape, kind) for output in proto.output if output}


def _broadcast(left: Shape, right: Shape) -> Shape:
    return tuple(int(size) for size in np.broadcast_shapes(left, right))


def _product(left: Shape, right: Shape, attributes: dict[str, Any]) -> Shape:
    if attributes.get("transA"):
        left = (*left[:-2], left[-1], left[-2])
    if attributes.get("transB"):
        right = (*right[:-2], right[-1], right[-2])
    return (*_broadcast(left[:-2], right[:-2]), left[-2], right[-1])


def _convolution(data: Shape, weight: Shape, attributes: dict[str, Any], *, channels_last: bool) -> Shape:
    spatial = data[1:-1] if channels_last else data[2:]
    rank = len(spatial)
    strides = attributes.get("strides") or [1] * rank
    dilations = attributes.get("dilations") or [1] * rank
    pads = attributes.get("pads") or [0] * (2 * rank)
    out = tuple(
        (size + pads[k] + pads[k + rank] - dilations[k] * (weight[2 + k] - 1) - 1) // strides[k] + 1
        for k, size in enumerate(spatial)
    )
    return (data[0], *out, weight[0]) if channels_last else (data[0], weight[0], *out)
