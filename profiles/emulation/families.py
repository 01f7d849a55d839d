"""What an operator of the optimized graph is: as the ONNX file's own graph says, or by the shapes in the profile.

The profile shows no weights that a kernel has repacked, which integer kernels always do; then the file tells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from edgekd.errors import EdgeKDError
from edgekd.profiles.inputs import Shape

_CONVOLUTIONS = frozenset({"Conv", "FusedConv", "QLinearConv", "ConvInteger", "NhwcFusedConv"})
_PRODUCTS = frozenset(
    {"MatMul", "Gemm", "FusedMatMul", "FusedGemm", "QLinearMatMul", "QGemm", "MatMulInteger"}
    | {"MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulNBits"}
)
_EXPENSIVE = (
    *("Sigmoid", "Tanh", "Gelu", "BiasGelu", "FastGelu", "QuickGelu", "Erf", "Exp", "HardSwish", "Mish"),
    *("QLinearSigmoid", "HardSigmoid", "Softplus"),
)
_FAMILIES = {
    **dict.fromkeys(_EXPENSIVE, "activation-expensive"),
    **dict.fromkeys(("GlobalAveragePool", "ReduceMean", "QLinearGlobalAveragePool"), "global-pool"),
    **dict.fromkeys(("MaxPool", "AveragePool", "QLinearAveragePool"), "pool"),
    **dict.fromkeys(("Softmax", "QLinearSoftmax"), "softmax"),
    **dict.fromkeys(("LayerNormalization", "SkipLayerNormalization", "InstanceNormalization"), "norm"),
    **dict.fromkeys(("Concat", "QLinearConcat"), "concat"),
    **dict.fromkeys(("Slice", "Split", "Pad", "Gather", "Tile", "Cast"), "copy"),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), "reshape"),
    **dict.fromkeys(("Resize", "Upsample"), "resize"),
    **dict.fromkeys(("Add", "Mul", "Sub", "Div", "Relu", "Clip", "QLinearAdd", "QLinearMul"), "elementwise"),
    "Transpose": "transpose",
    "QuantizeLinear": "quantize",
    "DequantizeLinear": "dequantize",
    "ConvTranspose": "deconv",
}


# What the runtime's fusions add to the name of a node.
_ADDED = re.compile(r"_token_\d+$")


def families_of_file(model: Path, *, batch: int, shape: Shape) -> dict[str, tuple[str, int]]:
    """Node name to family and multiply-accumulates; empty where the onnx package is not installed."""
    from edgekd.profiles.estimation.workload import read_workload

    try:
        found = read_workload(model, batch=batch, shape=shape)
    except EdgeKDError:
        return {}  # families are for the reader alone
    return {each.node: (each.family, each.macs) for each in found.operators}


def original_name(node: str) -> str:
    """The node's name in the file.

    >>> original_name("/conv_stem/Conv_token_1")
    '/conv_stem/Conv'
    """
    return _ADDED.sub("", node)


def family(op: str, inputs: Sequence[Sequence[int]], output: Sequence[int]) -> tuple[str, int]:
    """An operator's family and its multiply-accumulates.

    Args:
        op: its type, such as ``FusedConv``.
        inputs: dimensions of its inputs, weights among them.
        output: dimensions of its first output.
    """
    if op in _CONVOLUTIONS and len(output) == 4:
        tensors = [shape for shape in inputs if len(shape) == 4]
        if len(tensors) > 1:
            return _convolution(tensors[0], tensors[1], output)
    if op in _PRODUCTS:
        tensors = [shape for shape in inputs if len(shape) > 1]
        if len(tensors) > 1 and output:
            # What is summed over: all that both inputs have and the output has not.
            terms = round((prod(tensors[0]) * prod(tensors[1]) / max(1, prod(output))) ** 0.5)
            rows = prod(output[:-1])
            return ("gemm" if rows <= output[0] else "matmul-tokens"), prod(output) * max(1, terms)
    return _FAMILIES.get(op, "other"), 0


def _convolution(source: Sequence[int], weights: Sequence[int], output: Sequence[int]) -> tuple[str, int]:
    _, per_group, *window = weights
    groups = max(1, source[1] // max(1, per_group))
    macs = prod(output) * per_group * prod(window)
    if groups > 1:
        return ("conv-depthwise" if per_group == 1 else "conv-grouped"), macs
    if source[1] <= 4:
        return "conv-first", macs
    if window == [1, 1]:
        return "conv-1x1", macs
    same_size = list(source[2:]) == list(output[2:])
    return ("conv-dense-3x3" if window == [3, 3] and same_size else "conv-dense-other"), macs


def tensor_shapes(entries: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """The profile's ``[{"float": [1, 3, 224, 224]}, ...]`` to plain dimensions."""
    return [[int(size) for size in shape] for entry in entries for shape in entry.values()]
