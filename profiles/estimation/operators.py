"""A network as an edge runtime runs it: fused operators, each with what sets its time.

The interface between reading a graph (:mod:`edgekd.profiles.estimation.workload`) and pricing it. Counts are in
elements, so that one table can be priced in another precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

Family = Literal[
    "conv-dense-3x3",  # stride 1, no dilation: what Winograd is for
    "conv-1x1",
    "conv-dense-other",  # 3x3 of stride 2, 5x5, 7x1, dilated
    "conv-depthwise",
    "conv-grouped",
    "conv-first",  # at most four input channels
    "deconv",
    "gemm",  # one row a sample: a matrix times a vector, such as a classifier or a squeeze-excite layer
    "matmul-tokens",  # a linear layer over many rows
    "attention",  # a product of two activations
    "recurrent",
    "softmax",
    "norm",  # layer, instance, group, RMS
    "elementwise",
    "activation-expensive",  # sigmoid, tanh, GELU, SiLU, HardSwish, Mish, exp
    "pool",
    "global-pool",  # and other reductions
    "resize",
    "concat",
    "copy",  # slice, split, pad, gather, tile, change of type
    "transpose",
    "reshape",  # free, but for a dispatch in some runtimes
    "embedding",
    "quantize",  # float to integers
    "dequantize",  # integers to float
    "other",
]
FAMILIES: tuple[str, ...] = get_args(Family)


@dataclass(frozen=True, slots=True)
class Operator:
    """One fused operator. A matrix product has ``height`` rows and width 1.

    Attributes:
        node: name of the ONNX node, or of the first of those that were fused.
        op: ONNX operator type of that node; of a recognised pattern its own, such as ``Gelu``.
        macs: multiply-accumulates of convolutions and products; 0 elsewhere.
        input_elements: activations read (all inputs that are no weights, each once).
        output_elements: activations written.
        weight_elements: weights and biases read.
        element_bytes: of an activation as the file has it: 4, 2 or 1.
        weight_element_bytes: of a weight as the file has it; 0.5 for four bits.
        kernel: ``(height, width)`` of a convolution's or pooling's window.
        channels_in, channels_out: of all groups together; of a product the terms of a sum, and the columns.
        height, width: of the output.
        groups: of a convolution; of a product of activations, how many matrices (batch times heads).
        activation: fused into it, lower case: ``relu``, ``clip``, ``leakyrelu``, ``prelu``.
        integer: computes on int8, as its file says.
        sparse_2to4: every sampled group of four weights along the reduction has at most two that are not zero.
        fusable: an addition, multiplication or expensive activation whose input is written by a convolution or
            product for it alone. Some runtimes run it inside that operator, then it costs its other input alone.
        dynamic: the time counted is a guess: shapes depend on data (detections), see ``Workload.notes``.
    """

    node: str
    op: str
    family: Family
    macs: int = 0
    input_elements: int = 0
    output_elements: int = 0
    weight_elements: int = 0
    element_bytes: int = 4
    weight_element_bytes: float = 4.0
    kernel: tuple[int, int] | None = None
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    channels_in: int = 0
    channels_out: int = 0
    height: int = 1
    width: int = 1
    activation: str | None = None
    integer: bool = False
    sparse_2to4: bool = False
    fusable: bool = False
    dynamic: bool = False

    @property
    def elements(self) -> int:
        return self.output_elements

    @property
    def input_bytes(self) -> int:
        return self.input_elements * self.element_bytes

    @property
    def output_bytes(self) -> int:
        return self.output_elements * self.element_bytes

    @property
    def weight_bytes(self) -> int:
        return round(self.weight_elements * self.weight_element_bytes)

    @property
    def bytes(self) -> int:
        """Moved at least once, from or to memory or a cache."""
        return self.input_bytes + self.output_bytes + self.weight_bytes


@dataclass(frozen=True)
class Workload:
    """What one inference runs.

    Attributes:
        operators: in the file's order. Empty when only totals are known.
        precision: of the file: ``fp32``, ``fp16``, ``int8`` (some operators may stay float), ``int4 weights``.
        inputs: shape of each input, batch first.
        opset: of the file; 0 where the table does not come from one.
        totals: ``macs`` and ``weights`` where no operators are known, else empty.
        source: of a published architecture: where its layers were read.
        notes: what a reader must know, one line each.
    """

    operators: Sequence[Operator]
    precision: str = "fp32"
    inputs: Mapping[str, Sequence[int]] = field(default_factory=dict)
    opset: int = 0
    totals: Mapping[str, int] = field(default_factory=dict)
    source: str = ""
    notes: Sequence[str] = ()

    @property
    def macs(self) -> int:
        return self.totals.get("macs", 0) or sum(operator.macs for operator in self.operators)

    @property
    def weight_elements(self) -> int:
        return self.totals.get("weights", 0) or sum(operator.weight_elements for operator in self.operators)
